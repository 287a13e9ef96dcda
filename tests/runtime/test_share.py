from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime import (
    UsageError,
    VectorError,
    VectorFile,
    find_images,
    join_vectors,
    load_vectors,
    save_vectors,
)
from byol_edge.runtime.share import Share, read_share


def test_every_image_is_in_one_share_and_stays_there(photos: Path, tmp_path: Path):
    shares = [list(Share(number, 7).find_images(photos)) for number in range(7)]
    assert Counter(path for share in shares for path in share) == Counter(find_images(photos))
    assert all(share == sorted(share) and 4 < len(share) < 40 for share in shares)
    # The same wherever the folder is, and whatever else is in it.
    (tmp_path / "moved" / "disc").mkdir(parents=True)
    for name in ("00.png", "17.png", "new.png"):
        (tmp_path / "moved" / "disc" / name).touch()
    for number, share in enumerate(shares):
        moved = {path.name for path in Share(number, 7).find_images(tmp_path / "moved")} - {"new.png"}
        assert moved == {path.name for path in share if path.parent.name == "disc"} & {"00.png", "17.png"}


def test_the_hash_is_of_this_release_and_all_later_ones(tmp_path: Path):
    for number in range(8):
        (tmp_path / f"{number}.png").touch()
    assert [[path.stem for path in Share(number, 3).find_images(tmp_path)] for number in range(3)] == [
        ["1", "4"],
        ["0", "3", "6"],
        ["2", "5", "7"],
    ]


def test_a_share_is_written_beside_the_others():
    assert Share(3, 16).name_file(Path("out/vectors.parquet")) == Path("out/vectors-00003-of-00016.parquet")
    assert read_share("3/16") == Share(3, 16)


@pytest.mark.parametrize(
    "text", ["", "3", "3/", "/16", "a/b", "-1/16", "1.5/16", "3/16/2", " 3/16", "٣/16", "3/0", "0/0"]
)
def test_what_is_no_share_is_said(text: str):
    with pytest.raises(UsageError, match="shards="):
        read_share(text)


@pytest.mark.parametrize("text", ["16/16", "17/16", "1/1"])
def test_shares_are_counted_from_0(text: str):
    with pytest.raises(UsageError, match=rf"shards={text}: the shares of (16|1) are 0/.* counted from 0"):
        read_share(text)


def save_shares(folder: Path, suffix: str, of: int = 3, model: str = "m") -> list[Path]:
    """Share 1 is empty."""
    paths = [Share(number, of).name_file(folder / f"v{suffix}") for number in range(of)]
    for number, path in enumerate(paths):
        rows = 0 if number == 1 else 4
        sources = [f"{number}-{row}.png" for row in range(rows)]
        save_vectors(path, VectorFile(np.full((rows, 5), number, np.float32), sources, model, "e"))
    return paths


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_shares_are_joined_one_after_another(tmp_path: Path, suffix: str):
    paths = save_shares(tmp_path, suffix)
    assert join_vectors(paths, tmp_path / "joined.npz") == 8
    joined = load_vectors(tmp_path / "joined.npz")
    assert joined.sources == [f"{number}-{row}.png" for number in (0, 2) for row in range(4)]
    assert joined.vectors[:, 0].tolist() == [0, 0, 0, 0, 2, 2, 2, 2]
    assert (joined.model, joined.engine) == ("m", "e")


def test_a_share_that_is_missing_or_given_twice_is_named(tmp_path: Path):
    paths = save_shares(tmp_path, ".npz")
    with pytest.raises(UsageError, match=r"v-00001-of-00003\.npz is missing"):
        join_vectors([paths[0], paths[2]], tmp_path / "joined.npz")
    with pytest.raises(UsageError, match=r"v-00002-of-00003\.npz is given twice"):
        join_vectors([*paths, str(paths[2])], tmp_path / "joined.npz")
    with pytest.raises(UsageError, match="no files"):
        join_vectors([], tmp_path / "joined.npz")
    assert not (tmp_path / "joined.npz").exists()


def test_shares_of_two_models_are_not_joined(tmp_path: Path):
    paths = [*save_shares(tmp_path, ".npz")[:2], save_shares(tmp_path, ".npz", model="other")[2]]
    save_vectors(paths[0], VectorFile(np.zeros((1, 5), np.float32), ["a.png"], "m", "e"))
    save_vectors(paths[1], VectorFile(np.zeros((1, 5), np.float32), ["b.png"], "m", "e"))
    text = r"00002-of-00003\.npz holds vectors by other on e, and .* by m on e: they do not mix"
    with pytest.raises(VectorError, match=text):
        join_vectors(paths, tmp_path / "joined.npz")
