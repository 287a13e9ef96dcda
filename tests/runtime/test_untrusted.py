import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime.untrusted import load_arrays, parse_json, read_bytes


def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="not a regular file"):
            read_bytes(path, 100)
        with pytest.raises(ValueError, match="not a regular file"):
            load_arrays(path)
    opened = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with pytest.raises(IsADirectoryError):
            read_bytes(tmp_path / "folder", 100)
    assert len(list(Path("/proc/self/fd").iterdir())) == opened


def test_a_file_is_read_whole_or_refused_for_its_size(tmp_path: Path):
    (tmp_path / "a").write_bytes(bytes(100))
    assert read_bytes(tmp_path / "a", 100) == bytes(100)
    with pytest.raises(OSError, match="100 bytes, where 99 bytes are the most"):
        read_bytes(tmp_path / "a", 99)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match=r"1099\.5 GB, where 1\.0 MB"):
        read_bytes(tmp_path / "sparse", 10**6)


@pytest.mark.parametrize("depth", [100, 900, 100_000])
@pytest.mark.parametrize("ends", ["[]", ('{"a":', "}")])
def test_json_that_is_nested_too_deep_is_refused(depth: int, ends: tuple[str, str]):
    with pytest.raises(ValueError, match="nested too deep"):
        parse_json(ends[0] * depth + "1" + ends[1] * depth)


def test_json_as_this_project_writes_it_is_read():
    value = {"a": [{"b": [{"c": [1.5, None, "x"]}]}]}
    assert parse_json(json.dumps(value)) == parse_json(json.dumps(value).encode()) == value


def test_a_small_file_that_unpacks_to_gigabytes_is_refused_unopened(tmp_path: Path):
    file = tmp_path / "bomb.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w", force_zip64=True) as x:
        np.lib.format.write_array_header_1_0(x, {"descr": "|u1", "fortran_order": False, "shape": (2**31,)})
        for _ in range(2**31 // 2**26):
            x.write(bytes(2**26))
    assert file.stat().st_size < 10**7
    with pytest.raises(ValueError, match=r"unpacks from 2\.\d MB to 2\.1 GB"):
        load_arrays(file)


def test_what_is_no_npz_is_a_value_error_with_a_reason(tmp_path: Path):
    file = tmp_path / "a.npz"
    with file.open("wb") as handle:
        np.savez(handle, x=np.arange(1000))
    assert load_arrays(file)["x"][999] == 999
    whole = file.read_bytes()
    np.save(tmp_path / "b.npy", np.zeros(3))
    for content in (b"", b"junk", whole[: len(whole) // 2], whole[:-30], (tmp_path / "b.npy").read_bytes()):
        with pytest.raises(ValueError, match=r"\w"):
            load_arrays(content)


def test_a_damaged_npz_is_a_value_error_with_a_reason_or_its_arrays_are_unharmed():
    arrays = {"x": np.arange(300), "names": np.array(["a", "b"])}
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    whole = content.getvalue()
    refused = 0
    for bit in range(0, 8 * len(whole), 5):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            loaded = load_arrays(bytes(damaged))
        except ValueError as error:
            assert str(error)
            refused += 1
        else:  # the bit was in a field that nothing reads, or in the list of names
            assert all(np.array_equal(array, arrays[name]) for name, array in loaded.items())
    assert refused > 0.8 * 8 * len(whole) / 5


def test_names_of_no_letters_are_not_read_for_ever(tmp_path: Path):
    """A trillion of them take no bytes in a file, and all the memory as a list."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, archive.open("sources.npy", "w") as file:
        header = {"descr": "<U0", "fortran_order": False, "shape": (10**12,)}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(ValueError, match="arrays of nothing"):
        load_arrays(tmp_path / "a.npz")
