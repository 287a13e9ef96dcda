"""Hostile runs: each of their files mutated, and read by the commands that read runs."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import numpy as np
from byol_edge.runtime.untrusted import load_arrays

from .bench import EXTRA_SECONDS, Bench
from .commands import find_fault, run_command
from .hostile import mutate_bytes, mutate_json, put_in_place
from .trials import Outcome
from .written import check_whole

TRIALS = 100
COMMANDS = ("inspect", "export", "train")
FILES = ("config.json", "encoder.safetensors", "last.pt", "metrics.jsonl", "calibration.npz")
READ_BY = {"inspect": FILES[:4], "export": FILES, "train": FILES}


def try_runs(bench: Bench, folder: Path, trials: Sequence[int]) -> Iterator[Outcome]:
    for trial in trials:
        draw = Random(f"run {trial}")
        name = COMMANDS[trial % 3]
        run, out = folder / "run", folder / "bundle"
        shutil.copytree(bench.half_run if name == "train" else bench.run, run)
        file = run / READ_BY[name][trial // 3 % len(READ_BY[name])]
        what = put_in_place(file, draw) if draw.random() < 0.15 else _spoil(file, draw)
        if name == "train":
            command = [*bench.command("train", run), "--resume"]
        else:
            command = [run if each in (bench.run, bench.bundle) else each for each in bench.command(name, out)]
        ended = run_command(*command, limits=bench.limits(name, 2 * EXTRA_SECONDS))
        failure = find_fault(ended)
        if name == "export":
            failure = failure or check_whole("export", out, out)[1]
        yield Outcome(trial, f"{name}, {what}", ended.label, failure)


def _spoil(file: Path, draw: Random) -> str:
    content = file.read_bytes()
    if file.name == "config.json":
        what, content = mutate_json(json.loads(content), draw)
    elif file.name == "metrics.jsonl":
        lines = content.splitlines()
        place = draw.randrange(len(lines))
        what, lines[place] = mutate_json(json.loads(lines[place]), draw)
        what, content = f"line {place}: {what}", b"\n".join(lines) + b"\n"
    elif draw.random() < 0.4:
        what, content = mutate_bytes(content, draw)
    elif file.name == "encoder.safetensors":
        what, content = _spoil_weights(content, draw)
    elif file.name == "last.pt":
        what, content = _spoil_archive(content, draw)
    else:
        what, content = _spoil_images(file, draw)
    file.write_bytes(content)
    return f"{file.name}: {what}"


def _spoil_weights(content: bytes, draw: Random) -> tuple[str, bytes]:
    """The header of a safetensors file: its length, its table of tensors, or the description in its metadata."""
    length = int.from_bytes(content[:8], "little")
    header, rest = json.loads(content[8 : 8 + length]), content[8 + length :]
    way = draw.choice(("length", "table", "description", "description", "description"))
    if way == "length":
        lie = draw.choice((0, 1, length - 1, length + 1, 2**31, 2**63 - 1, 2**64 - 1))
        return f"length {lie}", lie.to_bytes(8, "little") + content[8:]
    if way == "table":
        del header["__metadata__"]["byol_edge"]
        what, changed = mutate_json(header, draw)
    else:
        what, description = mutate_json(json.loads(header["__metadata__"]["byol_edge"]), draw)
        header["__metadata__"]["byol_edge"] = description.decode(errors="replace")
        changed = json.dumps(header).encode()
    return f"{way} {what}", len(changed).to_bytes(8, "little") + changed + rest


def _spoil_archive(content: bytes, draw: Random) -> tuple[str, bytes]:
    """A part of torch's archive changed, its checksum put right: mostly the pickle that says what is where."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as new:
        names = old.namelist()
        pickled = next(name for name in names if name.endswith("data.pkl"))
        spoiled = draw.choice([pickled, pickled, pickled, draw.choice(names)])
        what = ""
        for name in names:
            part = old.read(name)
            if name == spoiled:
                what, part = mutate_bytes(part, draw) if part else ("filled", b"x")
            new.writestr(name, part)
    return f"{spoiled} {what}", out.getvalue()


def _spoil_images(file: Path, draw: Random) -> tuple[str, bytes]:
    images = load_arrays(file)["images"]
    ways = {
        "of floats": images.astype("f4"),
        "none": images[:0],
        "one": images[:1],
        "two": images[:2],
        "smaller": images[:, :16],
        "a number": np.uint8(1),
        "black": np.zeros_like(images),
        "flat": images.reshape(len(images), -1),
        "objects": np.array([None, {}], object),
    }
    name = draw.choice(list(ways))
    out = io.BytesIO()
    np.savez(out, **{draw.choice(("images", "images", "images", "image")): ways[name]})
    return name, out.getvalue()
