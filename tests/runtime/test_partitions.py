from pathlib import Path
from typing import Any

import numpy as np
import pytest
from byol_edge.runtime import (
    ByolEdgeError,
    Encoder,
    ImageError,
    UsageError,
    VectorError,
    find_images,
    join_vectors,
    load_vectors,
)
from byol_edge.runtime.partitions import embed_partition, is_embedded, list_partitions, plan_partitions

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

HF_IMAGE = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


@pytest.fixture(scope="module")
def encoder(finished_bundle: Path) -> Encoder:
    return Encoder(finished_bundle, "fp32.onnx", threads=1)


def write(path: Path, images: Any, column: str = "image", kind: Any = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = pyarrow.array(range(len(images)))
    parquet.write_table(pyarrow.table({"label": labels, column: pyarrow.array(images, kind)}), path, **options)
    return path


def embed(encoder: Encoder, source: Path, out: Path, **options: Any) -> tuple[int, int]:
    (partition,) = plan_partitions(source, out)
    return embed_partition(encoder, partition, **options)


def read(path: Path) -> list[dict[str, Any]]:
    return parquet.read_table(path).to_pylist()


def test_images_of_hugging_face_are_read_from_bytes_or_paths(encoder: Encoder, photos: Path, tmp_path: Path):
    paths = find_images(photos)[:6]
    images = [
        {"bytes": paths[0].read_bytes(), "path": "first.png"},
        {"bytes": paths[1].read_bytes(), "path": None},
        {"bytes": None, "path": str(paths[2])},
        {"bytes": None, "path": None},
        None,
        {"bytes": paths[5].read_bytes()[:60], "path": "damaged.png"},
        {"bytes": b"", "path": "empty.png"},
        {"bytes": None, "path": str(tmp_path / "gone.png")},
    ]
    source = write(tmp_path / "in" / "p.parquet", images, kind=HF_IMAGE)
    assert embed(encoder, source, tmp_path / "out") == (8, 5)
    rows = read(tmp_path / "out" / "p.parquet")
    assert [row["source"] for row in rows] == [
        "first.png", "p.parquet:1", str(paths[2]), "p.parquet:3", "p.parquet:4", "damaged.png", "empty.png",
        str(tmp_path / "gone.png"),
    ]  # fmt: skip
    assert [row["error"] is None for row in rows] == [row["vector"] is not None for row in rows]
    assert [row["error"] is None for row in rows] == [True] * 3 + [False] * 5
    assert rows[3]["error"] == rows[4]["error"] == "no image"
    assert "gone.png: no such file" in rows[7]["error"].lower()
    np.testing.assert_array_equal([row["vector"] for row in rows[:3]], encoder.embed(list(paths[:3])))
    # As a file of vectors, it holds those that there are.
    content = load_vectors(tmp_path / "out" / "p.parquet")
    assert content.sources == [row["source"] for row in rows[:3]]
    assert content.model == encoder.id
    np.testing.assert_array_equal(content.vectors, encoder.embed(list(paths[:3])))


def test_a_partition_of_paths_or_of_bytes(encoder: Encoder, photos: Path, tmp_path: Path):
    paths = find_images(photos)[:5]
    write(tmp_path / "in" / "a.parquet", [str(path) for path in paths], "path")
    write(tmp_path / "in" / "b.parquet", [path.read_bytes() for path in paths], "content")
    assert embed(encoder, tmp_path / "in" / "a.parquet", tmp_path / "out") == (5, 0)
    assert embed(encoder, tmp_path / "in" / "b.parquet", tmp_path / "out", column="content") == (5, 0)
    a, b = (load_vectors(tmp_path / "out" / f"{name}.parquet") for name in "ab")
    assert a.sources == [str(path) for path in paths]
    assert b.sources == [f"b.parquet:{row}" for row in range(5)]
    np.testing.assert_array_equal(a.vectors, b.vectors)


def test_the_bytes_depend_on_neither_threads_nor_row_groups(finished_bundle: Path, photos: Path, tmp_path: Path):
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in find_images(photos)]
    images[7]["bytes"] = b"x"
    for number, (threads, group) in enumerate([(1, 1000), (2, 7), (1, 50)]):
        source = write(tmp_path / f"in{number}" / "p.parquet", images, kind=HF_IMAGE, row_group_size=group)
        with Encoder(finished_bundle, "int8.onnx", threads=threads) as encoder:
            assert embed(encoder, source, tmp_path / f"out{number}", workers=threads) == (120, 1)
    files = [(tmp_path / f"out{number}" / "p.parquet").read_bytes() for number in range(3)]
    assert files[0] == files[1] == files[2]


def test_a_folder_is_listed_once_into_partitions(encoder: Encoder, photos: Path, tmp_path: Path):
    lists = list_partitions(photos, tmp_path / "lists", size=50)
    assert [path.name for path in lists] == ["00000.parquet", "00001.parquet", "00002.parquet"]
    listed = [row["path"] for path in lists for row in read(path)]
    assert listed == [str(path.absolute()) for path in find_images(photos)]
    stamps = [path.stat().st_mtime_ns for path in lists]
    assert list_partitions(photos, tmp_path / "lists", size=7) == lists
    assert [path.stat().st_mtime_ns for path in lists] == stamps
    for partition in plan_partitions(tmp_path / "lists", tmp_path / "out"):
        embed_partition(encoder, partition)
    assert join_vectors(sorted((tmp_path / "out").iterdir()), tmp_path / "v.npz") == 120
    assert load_vectors(tmp_path / "v.npz").sources == listed
    with pytest.raises(ImageError, match="no images"):
        list_partitions(tmp_path / "out", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_partitions_of_one_name_are_refused(tmp_path: Path):
    names = [tmp_path / "a" / "p.parquet", tmp_path / "b" / "p.parquet"]
    with pytest.raises(UsageError, match=r"b/p\.parquet and .*a/p\.parquet would both be written to"):
        plan_partitions(names, tmp_path / "out")
    with pytest.raises(UsageError, match=r"a/p\.parquet is given twice"):
        plan_partitions([names[0], str(names[0])], tmp_path / "out")
    with pytest.raises(UsageError, match="its vectors would replace it"):
        plan_partitions(names[:1], tmp_path / "a")
    for nothing in ([], tmp_path):
        with pytest.raises(UsageError, match=r"no \.parquet files"):
            plan_partitions(nothing, tmp_path / "out")


def test_what_is_done_is_known_and_what_does_not_mix_is_refused(encoder: Encoder, photos: Path, tmp_path: Path):
    source = write(tmp_path / "in" / "p.parquet", [str(path) for path in find_images(photos)[:3]], "path")
    (partition,) = plan_partitions(source, tmp_path / "out")
    assert not is_embedded(partition, encoder.id, encoder.engine)
    embed_partition(encoder, partition)
    assert is_embedded(partition, encoder.id, encoder.engine)
    other = "onnxruntime" if encoder.engine == "openvino" else "openvino"
    text = rf"{encoder.id} on {encoder.engine}, and these would be by other on {encoder.engine}"
    with pytest.raises(VectorError, match=text):
        is_embedded(partition, "other", encoder.engine)
    with pytest.raises(VectorError, match=rf"would be by .* on {other}: they do not mix"):
        is_embedded(partition, encoder.id, other)
    write(source, [str(path) for path in find_images(photos)[:4]], "path")
    with pytest.raises(ByolEdgeError, match=r"has 3 rows, and .* has 4: it has changed"):
        is_embedded(partition, encoder.id, encoder.engine)


def test_a_partition_that_cannot_be_read_leaves_nothing(encoder: Encoder, photos: Path, tmp_path: Path):
    good = write(tmp_path / "in" / "good.parquet", [str(path) for path in find_images(photos)[:3]], "path")
    write(tmp_path / "in" / "column.parquet", ["a.png"], "file")
    (tmp_path / "in" / "damaged.parquet").write_bytes(good.read_bytes()[:-20])
    (tmp_path / "in" / "text.parquet").write_text("a.png")
    for name, reason in (
        ("gone", "cannot be read"),
        ("damaged", "cannot be read"),
        ("text", "cannot be read"),
        ("column", "no column image or path; it has label, file"),
    ):
        with pytest.raises(ByolEdgeError, match=rf"{name}\.parquet: {reason}"):
            embed(encoder, tmp_path / "in" / f"{name}.parquet", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_partition_without_rows_is_a_file_without_vectors(encoder: Encoder, tmp_path: Path):
    source = write(tmp_path / "in" / "p.parquet", [], kind=HF_IMAGE)
    assert embed(encoder, source, tmp_path / "out") == (0, 0)
    assert load_vectors(tmp_path / "out" / "p.parquet").vectors.shape == (0, encoder.embedding_size)
