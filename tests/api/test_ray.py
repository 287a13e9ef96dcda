"""byol_edge.ray on a local Ray of two CPUs."""

import io
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from byol_edge.runtime import ByolEdgeError, Encoder, UsageError, find_images
from byol_edge.runtime.partitions import embed_partition, plan_partitions
from PIL import Image
from shapes import SHAPES, draw_shape

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

import byol_edge.ray as on_ray  # noqa: E402
from byol_edge.ray import Embed, Finished, embed_partitions, list_partitions  # noqa: E402

pytestmark = pytest.mark.slow

HF_IMAGE = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


def write(path: Path, images: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table({"number": range(len(images)), "image": pyarrow.array(images, HF_IMAGE)})
    parquet.write_table(table, path, row_group_size=25)
    return path


@pytest.fixture
def partitions(photos: Path, tmp_path: Path) -> list[Path]:
    """Six of 20 images each, as Hugging Face has them: bytes, paths or both; two of each six cannot be read."""
    paths = find_images(photos)
    written = []
    for number in range(6):
        images: list[Any] = [{"bytes": path.read_bytes(), "path": path.name} for path in paths[number::6]]
        images[3] = {"bytes": None, "path": str(paths[3])}
        images[4]["path"] = None
        images[5] = None
        images[6]["bytes"] = images[6]["bytes"][:50]
        written.append(write(tmp_path / "in" / f"p{number}.parquet", images))
    return written


def embed_here(bundle: Path, sources: list[Path], out: Path) -> Path:
    """By one process, without Ray."""
    with Encoder(bundle) as encoder:
        for partition in plan_partitions(sources, out):
            embed_partition(encoder, partition, workers=2)
    return out


def same(one: Path, other: Path) -> bool:
    """Whether two folders hold the same files, and nothing else, such as one that is hidden."""
    names = list_names(one)
    return names == list_names(other) and all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in names
    )


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def workers() -> list[int]:
    """The processes of our Ray's actors."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("cmdline").read_bytes().startswith(b"ray::MapWorker"):
                found += [int(process.name)] if parent(parent(int(process.name))) == os.getpid() else []
        except OSError:  # has ended
            pass
    return found


def parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])


def when(condition: Callable[[], bool], act: Callable[[], None]) -> threading.Thread:
    """Waits in a thread for a condition, and acts."""

    def wait() -> None:
        while not condition():
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_the_bytes_are_those_of_one_process_and_what_is_there_is_left_alone(
    cluster: None, finished_bundle: Path, partitions: list[Path], tmp_path: Path
):
    alone, out = embed_here(finished_bundle, partitions, tmp_path / "alone"), tmp_path / "out"
    done = embed_partitions(finished_bundle, tmp_path / "in", out, actors=2, batch_size=8)
    assert done == Finished(embedded=6, before=0, images=120, unreadable=12)
    assert same(out, alone)
    stamp = (out / "p5.parquet").stat().st_mtime_ns
    for number in (0, 3):
        (out / f"p{number}.parquet").unlink()
    done = embed_partitions(finished_bundle, partitions, out)
    assert done == Finished(embedded=2, before=4, images=40, unreadable=4)
    assert same(out, alone)
    assert (out / "p5.parquet").stat().st_mtime_ns == stamp
    assert embed_partitions(finished_bundle, partitions, out) == Finished(0, 6, 0, 0)
    with Encoder(finished_bundle) as encoder:
        default, other = encoder.variant, {"int8.onnx": "fp32.onnx", "fp32.onnx": "int8.onnx"}[encoder.variant]
    with pytest.raises(ByolEdgeError, match=rf"p0\.parquet holds vectors by .*{default}.*would be by .*{other}"):
        embed_partitions(finished_bundle, partitions, out, variant=other)


def test_an_actor_that_is_killed_is_replaced(
    cluster: None, finished_bundle: Path, partitions: list[Path], tmp_path: Path
):
    large = io.BytesIO()
    Image.new("RGB", (9000, 9000), "teal").save(large, "PNG")  # takes long to decode
    slow = write(tmp_path / "in" / "slow.parquet", [{"bytes": large.getvalue(), "path": "large.png"}] * 3)
    alone, out = embed_here(finished_bundle, [slow, *partitions], tmp_path / "alone"), tmp_path / "out"
    killed: list[int] = []

    def kill() -> None:
        assert not (out / "slow.parquet").exists()
        for process in workers():
            os.kill(process, signal.SIGKILL)
            killed.append(process)

    thread = when((out / ".slow.begun").exists, kill)
    done = embed_partitions(finished_bundle, [slow, *partitions], out, actors=2)
    thread.join()
    assert len(killed) == 2
    assert done.embedded == 7
    assert same(out, alone)


def test_a_partition_that_kills_its_actors_is_named_and_the_others_are_done(
    cluster: None, finished_bundle: Path, partitions: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Killer:
        def __getattr__(self, name: str) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

    class Killed(on_ray._EmbedPartition):
        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            if batch["source"][0].endswith("p1.parquet"):
                self._encoder = Killer()
            return super().__call__(batch)

    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(ByolEdgeError) as error:
        patch.setattr(on_ray, "_EmbedPartition", Killed)
        embed_partitions(finished_bundle, partitions, out)
    assert str(error.value).startswith(f"{partitions[1]}: 4 actors died of it, perhaps out of memory")
    assert str(error.value).endswith("(1 partition of 6 could not be embedded; the same call tries again)")
    assert list_names(out) == [f"p{number}.parquet" for number in (0, 2, 3, 4, 5)]
    assert embed_partitions(finished_bundle, partitions, out).embedded == 1
    assert same(out, embed_here(finished_bundle, partitions, tmp_path / "alone"))


def test_a_damaged_partition_is_named_and_the_others_are_done(
    cluster: None, finished_bundle: Path, partitions: list[Path], tmp_path: Path
):
    partitions[2].write_bytes(partitions[2].read_bytes()[:-9])
    gone = tmp_path / "in" / "gone.parquet"
    with pytest.raises(ByolEdgeError) as error:
        embed_partitions(finished_bundle, [*partitions, gone], tmp_path / "out")
    assert str(error.value).startswith(f"{gone}: cannot be read (")
    assert str(error.value).count(str(gone)) == 1 + str(error.value).count(f"'{gone}'")
    assert "(2 partitions of 7 could not be embedded" in str(error.value)
    assert list_names(tmp_path / "out") == [f"p{number}.parquet" for number in (0, 1, 3, 4, 5)]


def test_an_actor_that_opens_another_bundle_ends_the_job(
    cluster: None, finished_bundle: Path, partitions: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Elsewhere(on_ray._EmbedPartition):
        def __init__(self, job: Any) -> None:
            super().__init__(on_ray._Job(**{**vars(job), "model": "another"}))

    monkeypatch.setattr(on_ray, "_EmbedPartition", Elsewhere)
    with pytest.raises(ByolEdgeError, match=r"^Ray stopped: .*, and another where the job began$"):
        embed_partitions(finished_bundle, partitions, tmp_path / "out")


def test_a_folder_of_images_is_embedded_by_lists(cluster: None, finished_bundle: Path, photos: Path, tmp_path: Path):
    lists = list_partitions(photos, tmp_path / "lists", size=50)
    assert embed_partitions(finished_bundle, lists, tmp_path / "out") == Finished(3, 0, 120, 0)
    assert same(tmp_path / "out", embed_here(finished_bundle, lists, tmp_path / "alone"))


def test_embed_in_a_pipeline_of_ones_own(
    cluster: None, finished_bundle: Path, partitions: list[Path], photos: Path, tmp_path: Path
):
    data = ray.data.read_parquet(str(tmp_path / "in"))
    actors = {"compute": ray.data.ActorPoolStrategy(size=1), "num_cpus": 1}
    arguments = (str(finished_bundle),)
    data.map_batches(Embed, fn_constructor_args=arguments, batch_size=32, **actors).write_parquet(tmp_path / "out")
    table = parquet.read_table(tmp_path / "out")
    assert table.column_names == ["number", "source", "vector", "error", "model", "engine"]
    rows = table.to_pylist()
    assert len(rows) == 120
    assert {row["number"] for row in rows if row["vector"] is None} == {5, 6}
    with Encoder(finished_bundle) as encoder:
        assert table.schema.field("vector").type == pyarrow.list_(pyarrow.float32(), encoder.embedding_size)
        assert {(row["model"], row["engine"]) for row in rows} == {(encoder.id, encoder.engine)}
        found = {row["source"]: row["vector"] for row in rows if row["number"] < 3}
        for path in find_images(photos)[:12]:
            if path.parent.name == "disc" and path.name in found and int(path.stem) < 12:
                np.testing.assert_array_equal(np.float32(found[path.name]), encoder.embed(path))

    paths = find_images(photos)[:10]
    data = ray.data.from_items([{"path": str(path)} for path in paths])
    rows = data.map_batches(
        Embed, fn_constructor_args=arguments, fn_constructor_kwargs={"column": "path"}, **actors
    ).take_all()
    assert sorted(row["source"] for row in rows) == [str(path) for path in paths]
    assert {row["error"] for row in rows} == {None}


def test_embed_without_ray_takes_a_batch(finished_bundle: Path, photos: Path):
    embed = Embed(finished_bundle, column="path", threads=1)
    path = find_images(photos)[0]
    batch = {"path": np.array([str(path), "gone.png", None], object), "row": np.arange(3), "box": np.zeros((3, 4))}
    table = embed(batch)
    assert table.column_names == ["row", "box", "source", "vector", "error", "model", "engine"]
    assert table.column("source").to_pylist() == [str(path), "gone.png", None]
    assert [each is None for each in table.column("vector").to_pylist()] == [False, True, True]
    assert table.column("error").to_pylist()[2] == "no image"
    with pytest.raises(UsageError, match="column=path: the data set has image"):
        embed({"image": batch["path"]})


@pytest.mark.parametrize(("name", "value"), [("actors", 0), ("cpus", 0), ("batch_size", -1)])
def test_what_is_out_of_range_is_refused(finished_bundle: Path, tmp_path: Path, name: str, value: int):
    arguments: Any = {name: value}
    with pytest.raises(UsageError, match=f"{name}={value}: has to be 1 or more"):
        embed_partitions(finished_bundle, tmp_path, tmp_path / "out", **arguments)


WITHOUT = "import sys; sys.modules[{!r}] = None; import byol_edge.ray"


@pytest.mark.parametrize("library", ["ray", "pyarrow", "ray.data"])
def test_what_is_not_installed_is_named(library: str):
    result = subprocess.run([sys.executable, "-c", WITHOUT.format(library)], capture_output=True, text=True)
    last = result.stderr.splitlines()[-1]
    assert last == f"ImportError: byol_edge.ray needs {library}: pip install 'byol-edge[ray]'"


def test_usage_statistics_are_off_unless_asked_for():
    code = "import byol_edge.ray, os; print(os.environ['RAY_USAGE_STATS_ENABLED'])"
    for given, expected in (({}, "0"), ({"RAY_USAGE_STATS_ENABLED": "1"}, "1")):
        environment = {name: value for name, value in os.environ.items() if name != "RAY_USAGE_STATS_ENABLED"}
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment | given, check=True
        )
        assert result.stdout.strip() == expected


DRIVER = """
import sys, ray
from byol_edge.ray import embed_partitions
ray.init(num_cpus=2, include_dashboard=False)
embed_partitions(*sys.argv[1:], actors=2)
"""


def test_20_000_images_with_actors_and_the_job_itself_killed(cluster: None, finished_bundle: Path, tmp_path: Path):
    random_numbers = np.random.default_rng(0)
    for number in range(40):
        images: list[Any] = []
        for row in range(500):
            encoded = io.BytesIO()
            draw_shape(SHAPES[row % 3], random_numbers).save(encoded, "PNG")
            images.append({"bytes": encoded.getvalue(), "path": f"{number}-{row}.png"})
        images[499]["bytes"] = b"x"
        write(tmp_path / "in" / f"train-{number:05}-of-00040.parquet", images)
    sources = sorted((tmp_path / "in").iterdir())
    alone = embed_here(finished_bundle, sources, tmp_path / "alone")

    # An actor is killed again and again, with work done in between.
    out, killed = tmp_path / "actors", []
    draw = random.Random(0)

    def kill_often() -> None:
        for done in (1, 8, 16, 24, 32):
            while len(list(out.glob("*.parquet"))) < done:
                time.sleep(0.02)
            for process in draw.sample(found, 1) if (found := workers()) else []:
                os.kill(process, signal.SIGKILL)
                killed.append(process)

    thread = when(out.exists, kill_often)
    done = embed_partitions(finished_bundle, sources, out, actors=2)
    thread.join()
    assert killed
    assert done == Finished(40, 0, 20_000, 40)
    assert same(out, alone)

    # The job is killed, and begun again.
    out = tmp_path / "job"
    arguments = [sys.executable, "-c", DRIVER, str(finished_bundle), str(tmp_path / "in"), str(out)]
    job = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    when(lambda: job.poll() is not None or len(list(out.glob("train-*"))) >= 7, job.kill).join()
    assert job.wait() == -signal.SIGKILL
    time.sleep(3)  # its actors end with it
    before = len(list(out.glob("train-*")))
    assert 7 <= before < 40
    done = embed_partitions(finished_bundle, tmp_path / "in", out)
    assert (done.before, done.embedded) == (before, 40 - before)
    assert same(out, alone)
