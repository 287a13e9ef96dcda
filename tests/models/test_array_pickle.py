"""Pickles that are no checkpoints of arrays: nothing in them is run, whatever they hold."""

import io
import os
import pickle
import resource
import struct
from collections import OrderedDict
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import pytest
from byol_edge.models.array_pickle import Array, Mentioned, read_pickle
from byol_edge.models.haiku import read_haiku
from byol_edge.runtime import RunError
from haiku_pickles import importable


class Calls:
    """Calls a function when it is read."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


def values(found: Any) -> Any:
    assert isinstance(found, Array)
    return found.values


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_plain_values_and_arrays_are_read(protocol: int):
    arrays = [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(7, np.int64),
        np.zeros((0, 3), np.float16),
        np.array([1, 2], ">i4"),
        np.array([True, False]),
    ]
    plain = {"a": [1, -(2**70), 0.5, None, True, "é", ("x",), (), {}, {"b": "c"}], 3: OrderedDict(d=1)}
    found = read_pickle(pickle.dumps({"arrays": arrays, "plain": plain}, protocol=protocol))
    assert found["plain"] == plain
    for array, read in zip(arrays, found["arrays"], strict=True):
        assert values(read).dtype == array.dtype
        assert np.array_equal(values(read), array)
        assert not values(read).flags.writeable


def test_bytes_and_sets_are_read():
    for protocol in (2, 4):
        assert read_pickle(pickle.dumps([b"\xff\x00", b""], protocol=protocol)) == [b"\xff\x00", b""]
    assert read_pickle(pickle.dumps({1}, protocol=4)) == [1]


def test_dills_arrays_are_read():
    def make(function: Any, arguments: Any, state: Any) -> Any: ...

    array = np.arange(4, dtype=np.float32)
    function, arguments, state = array.__reduce__()[:3]  # type: ignore
    with importable("dill._dill", _create_array=make):
        content = pickle.dumps(Calls(make, function, arguments, state), protocol=2)
    assert np.array_equal(values(read_pickle(content)), array)


def test_other_objects_are_not_made():
    class State:
        pass

    state = State()
    state.x = 1  # type: ignore
    with importable("haiku._src.data_structures", State=State):
        content = pickle.dumps(state, protocol=2)
    found = read_pickle(content)
    assert isinstance(found, Mentioned)
    assert found.name.text == "haiku._src.data_structures.State"
    assert found.state == {"x": 1}


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", ["system", "eval", "open", "getattr", "path"])
def test_code_is_refused_by_name_and_not_run(protocol: int, name: str, tmp_path: Path):
    witness = tmp_path / "witness"
    content = {
        "system": Calls(os.system, f"touch {witness}"),
        "eval": Calls(eval, f"open({str(witness)!r}, 'w')"),
        "open": Calls(open, str(witness), "w"),
        "getattr": Calls(getattr, Calls, "x"),
        "path": PosixPath("x"),
    }[name]
    with pytest.raises(RunError, match=r"^a\.pkl: a pickle that names \S+, which arrays do not need") as error:
        read_haiku(pickle.dumps({"experiment_state": content}, protocol=protocol), "a.pkl")
    assert "\n" not in str(error.value)
    assert not witness.exists()


def test_what_a_known_package_names_is_not_run_either(tmp_path: Path):
    # numpy has functions that write files, and that import anything.
    for content in (Calls(np.savetxt, str(tmp_path / "witness"), [1]), Calls(np.fromfile, "/etc/hostname")):
        assert isinstance(read_pickle(pickle.dumps(content, protocol=2)), Mentioned)
    assert list(tmp_path.iterdir()) == []


def short(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n)R"
FLOAT = b"cnumpy\ndtype\n" + short("f4") + b"\x85R"


def array_of(shape: bytes, data: bytes, kind: bytes = FLOAT) -> bytes:
    """A pickle of an array by hand: version, shape, type, order, bytes."""
    return b"\x80\x04" + RECONSTRUCT + b"(K\x01" + shape + kind + b"\x89" + data + b"tb."


def deep(before: bytes, after: bytes, count: int = 300_000) -> bytes:
    return b"\x80\x04" + before * count + b")" + after * count + b"."


HOSTILE = {
    "empty": b"",
    "a protocol and nothing": b"\x80\x02",
    "text": b"junk",
    "truncated": pickle.dumps(np.zeros(9))[:-20],
    "no stack": b"\x80\x04R.",
    "no mark": b"\x80\x04t.",
    "memo that is not there": b"\x80\x04h\x05.",
    "a call of a value": b"\x80\x04K\x01)R.",
    "a state of a value": b"\x80\x04K\x01}b.",
    "a name of numbers": b"\x80\x04K\x01K\x02\x93.",
    "persistent": b"\x80\x04K\x01Q.",
    "extension": b"\x80\x04\x82\x01.",
    "old instance": b"(ios\nsystem\n.",
    "keys that nest": b"\x80\x04}" + b")" + b"\x85" * 500_000 + b"K\x01s.",
    "objects": pickle.dumps(np.array([{}, []], object), protocol=2),
    "texts": pickle.dumps(np.array(["a"]), protocol=2),
    "records": pickle.dumps(np.zeros(2, [("a", "f4")]), protocol=2),
    "huge": array_of(b"\x8a\x06" + struct.pack("<q", 2**40)[:6] + b"\x85", b"C\x04abcd"),
    "negative": array_of(b"J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86", b"C\x04abcd"),
    "shape of texts": array_of(short("a") + b"\x85", b"C\x04abcd"),
    "type that nests": array_of(b"K\x01\x85", b"C\x04abcd", b"cnumpy\ndtype\n)" + b"\x85" * 500_000 + b"\x85R"),
    "no bytes": array_of(b"K\x01\x85", b"N"),
    "bytes of another text": b"\x80\x04c_codecs\nencode\n" + short("a") + short("utf-16") + b"\x86R.",
    "wide text as bytes": b"\x80\x04c_codecs\nencode\n" + short("\u20ac") + short("latin1") + b"\x86R.",
    # The same text made into bytes again and again.
    "bomb": b"\x80\x04c_codecs\nencode\n"
    + (short("a" * 100_000) + short("latin1") + b"\x86q\x00" + b"c_codecs\nencode\nh\x00R0" * 100_000)
    + b".",
    # Python's reader in C makes room for all numbers below.
    "memo bomb": b"\x80\x04K\x01r\xff\xff\xff\xff00.",
    "long claims": b"\x80\x04\x8e" + struct.pack("<Q", 2**62),
    "buffer claims": b"\x80\x05\x96" + struct.pack("<Q", 2**45),
    "names of a tuple that nest": b"\x80\x04cdill._dill\n_create_namedtuple\n("
    + b"]"
    + short("f")
    + b"\x85"
    + short("m")
    + b"tR.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_one_line(name: str):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RunError) as error:
        read_haiku(HOSTILE[name], "a.pkl")
    assert str(error.value).startswith("a.pkl: ")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB


@pytest.mark.parametrize(
    ("before", "after"), [(b"", b"\x85"), (b"]", b"a"), (b"}X\x01\x00\x00\x00a", b"s"), (b"chaiku\nF\n", b"\x85R")]
)
def test_deep_nesting_is_read_and_forgotten(before: bytes, after: bytes):
    read_pickle(deep(before, after))


def test_a_list_in_itself():
    content = io.BytesIO()
    looped: dict[str, Any] = {}
    looped["experiment_state"] = looped
    pickle.dump(looped, content)
    with pytest.raises(RunError, match="without online_params"):
        read_haiku(content.getvalue(), "a.pkl")


def test_references_that_grow_without_end_are_not_followed():
    grown: Any = {"online_params": {}}
    for _ in range(60):
        grown = [grown] * 10
    with pytest.raises(RunError, match="without online_params"):
        read_haiku(pickle.dumps({"experiment_state": grown}), "a.pkl")


def test_too_many_steps_are_refused():
    with pytest.raises(ValueError, match="more than 4194304 steps"):
        read_pickle(b"\x80\x04" + b"N0" * 2**22)
