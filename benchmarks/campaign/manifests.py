"""Hostile manifests, and hostile files beside them: every command that reads a bundle ends in time, with one line."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from byol_edge.runtime.files import sha256
from byol_edge.runtime.untrusted import load_arrays

from .bench import Bench
from .commands import find_fault, run_command
from .hostile import mutate_json, put_in_place
from .trials import Outcome
from .written import check_vectors

TRIALS = 300
COMMANDS = ("inspect", "self-test", "embed-few", "validate")
BOMB = 48 * 2**26  # bytes that an .npz of some megabytes says it holds, and holds


def try_manifests(bench: Bench, folder: Path, trials: Sequence[int]) -> Iterator[Outcome]:
    for trial in trials:
        draw = Random(f"manifest {trial}")
        bundle, out = folder / "bundle", folder / "v.npz"
        shutil.copytree(bench.bundle, bundle)
        spoil = draw.choice([_spoil_manifest] * 7 + [_spoil_file] * 2 + [_swap_files, _spoil_golden, _spoil_golden])
        what = spoil(bundle, draw)
        name = COMMANDS[trial % len(COMMANDS)]
        command = [bundle if each == bench.bundle else each for each in bench.command(name, out)]
        as_json = ("--json",) if name != "embed-few" and draw.random() < 0.3 else ()
        ended = run_command(*command, *as_json, limits=bench.limits(name))
        failure = find_fault(ended)
        if name == "embed-few" and ended.code == 0:
            failure = failure or check_vectors(out, 12, expected=bench.result("embed-few"))
        elif out.exists():
            failure = failure or "it failed, and wrote the file nevertheless"
        yield Outcome(trial, f"{name} of {spoil.__name__[1:]}: {what}", ended.label, failure)


def read_manifest(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))


def put_hash_right(bundle: Path, name: str) -> None:
    """Lets the manifest say what the file is now."""
    content, manifest = (bundle / name).read_bytes(), read_manifest(bundle)
    manifest["files"][name] = {"sha256": sha256(content), "size": len(content)}
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def _spoil_manifest(bundle: Path, draw: Random) -> str:
    what, content = mutate_json(read_manifest(bundle), draw)
    (bundle / "manifest.json").write_bytes(content)
    return what


def _spoil_file(bundle: Path, draw: Random) -> str:
    default = read_manifest(bundle)["default"]
    names = ["manifest.json", "manifest.json", default, "golden.npz", "encoder.safetensors", "measured.json"]
    return put_in_place(bundle / draw.choice([*names, "golden/large.jpg"]), draw)


def _swap_files(bundle: Path, draw: Random) -> str:
    """Two files' contents, or their names in the manifest: all hashes are right then, and the model is another."""
    manifest = read_manifest(bundle)
    one, other = draw.sample([name for name in manifest["files"] if "/" not in name], 2)
    contents = [(bundle / name).read_bytes() for name in (other, one)]
    for name, content in zip((one, other), contents, strict=True):
        (bundle / name).write_bytes(content)
    if draw.random() < 0.5:
        for name in (one, other):
            put_hash_right(bundle, name)
        return f"{one} and {other} swapped, with their hashes"
    return f"{one} and {other} swapped"


def _spoil_golden(bundle: Path, draw: Random) -> str:
    """The hash is put right, so that the arrays are read."""
    file = bundle / "golden.npz"
    arrays = load_arrays(file)
    name = draw.choice(sorted(arrays))
    changes: dict[str, Callable[[], Any]] = {
        "a number": lambda: np.float32(1),
        "empty": lambda: arrays[name][:0],
        "of no columns": lambda: arrays[name][..., :0],
        "one row short": lambda: arrays[name][1:],
        "of one dimension more": lambda: arrays[name][None],
        "not finite": lambda: np.full_like(arrays[name], np.nan) if arrays[name].dtype.kind == "f" else arrays[name],
        "of float64": lambda: arrays[name].astype("f8"),
        "of text": lambda: arrays[name].astype("U")[:2],
        "gone": lambda: None,
    }
    way = draw.choice([*changes, "a lie", "a bomb", "pickled"])
    if way in changes:
        arrays[name] = changes[way]()
        kept: dict[str, Any] = {key: each for key, each in arrays.items() if each is not None}
        with file.open("wb") as handle:
            np.savez_compressed(handle, **kept)
    else:
        _write_archive(file, f"{name}.npy", way)
    put_hash_right(bundle, "golden.npz")
    return f"{name} {way}"


def _write_archive(file: Path, name: str, way: str) -> None:
    """One array, as no numpy would write it: of a shape that is not there, of gigabytes of zeros, or of objects."""
    header = io.BytesIO()
    shape, kind = {"a lie": ((10**13,), "|u1"), "a bomb": ((BOMB,), "|u1"), "pickled": ((2,), "|O")}[way]
    np.lib.format.write_array_header_1_0(header, {"descr": kind, "fortran_order": False, "shape": shape})
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(name, "w", force_zip64=True) as member,
    ):
        member.write(header.getvalue())
        if way == "pickled":
            member.write(b"cos\nabort\n(tR.")
        for _ in range(BOMB // 2**26 if way == "a bomb" else 1):
            member.write(bytes(2**26 if way == "a bomb" else 1000))
