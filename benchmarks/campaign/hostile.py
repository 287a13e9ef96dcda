"""JSON and files of the kind that nobody means well with, drawn by a seed."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from random import Random
from typing import Any

DEEP = 100_000
HOLE = 50 * 2**30  # bytes of a file that takes no space
# What stands in place of a value, as it is written in JSON.
VALUES: dict[str, str] = {
    "null": "null",
    "true": "true",
    "-1": "-1",
    "0": "0",
    "0.5": "0.5",
    "10**9": "1000000000",
    "2**31": "2147483648",
    "2**63": "9223372036854775808",
    "10**400": "1" + "0" * 400,
    "10**5000": "1" + "0" * 5000,
    "1e308": "1e308",
    "1e999": "1e999",
    "NaN": "NaN",
    "-Infinity": "-Infinity",
    "no text": '""',
    "5,000 letters": json.dumps("x" * 5000),
    "a folder's name": '"golden"',
    "controls": json.dumps("a\x1b[31m\x07\nb\u202egnp\x00"),
    "half a character": '"\\ud800"',
    "..": '".."',
    "a path out": '"../../etc/passwd"',
    "an absolute path": '"/etc/passwd"',
    "a device": '"/dev/zero"',
    "a huge network": '"vit_giant_patch14_dinov2"',
    "code": "\"__import__('os').abort()\"",
    "a list": "[]",
    "a table": "{}",
    "a list of all": '[null, -1, "x", {}, []]',
    "a table of all": '{"x": null, "": [{}]}',
    "a long list": "[" + "0, " * 200_000 + "0]",
    "a deep list": "[" * DEEP + "]" * DEEP,
    "a deep table": '{"a":' * DEEP + "1" + "}" * DEEP,
}
_MARK = "what stands here is replaced"


def mutate_json(content: Any, draw: Random) -> tuple[str, bytes]:
    """What was done, and the bytes, which are others: mostly one value replaced, somewhere."""
    while True:
        what, changed = _mutate_json(json.loads(json.dumps(content)), draw)
        if changed != json.dumps(content).encode():
            return what, changed


def _mutate_json(content: Any, draw: Random) -> tuple[str, bytes]:
    way = draw.choice(["value"] * 14 + ["gone", "key", "twice", "cut", "bytes", "whole"])
    text = json.dumps(content, indent=2)
    if way == "cut":
        place = draw.randrange(len(text))
        return f"cut at {place}", text[:place].encode()
    if way == "bytes":
        place = draw.randrange(len(text))
        bad = draw.choice((b"\xff\xfe", b"\x00", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf"))
        return f"{bad!r} at {place}", text[:place].encode() + bad + text[place:].encode()
    name, value = draw.choice(list(VALUES.items()))
    if way == "whole":
        return f"{name} in place of all", value.encode()
    parent, key, path = _draw_place(content, draw)
    if way == "gone":
        del parent[key]
        return f"{path} gone", json.dumps(content).encode()
    if way == "key" and isinstance(parent, dict):
        new = draw.choice(("", "..", "/dev/zero", "a\x1b[31m\n", "x" * 5000, "\ud800", "../x.onnx", "golden"))
        parent[new] = parent.pop(key)
        return f"{path} named {new[:20]!r}", json.dumps(content).encode()
    old, parent[key] = parent[key], _MARK
    if way == "twice" and isinstance(parent, dict):
        text = json.dumps(content).replace(f'"{_MARK}"', f"{json.dumps(old)}, {json.dumps(key)}: {value}", 1)
        return f"{path} twice, then {name}", text.encode()
    return f"{path} = {name}", json.dumps(content).replace(f'"{_MARK}"', value, 1).encode()


def _draw_place(content: Any, draw: Random) -> tuple[Any, Any, str]:
    """A value anywhere, by its parent and its key; each level is as likely as its siblings, however much is below."""
    path: list[str] = []
    node = content
    while True:
        key = draw.choice(sorted(node)) if isinstance(node, dict) else draw.randrange(len(node))
        path.append(str(key))
        below = node[key]
        if not isinstance(below, dict | list) or not below or draw.random() < 0.15:
            return node, key, ".".join(path)
        node = below


def put_in_place(file: Path, draw: Random) -> str:
    """Puts what is no plain file, or not the right one, where a file was, and says what."""
    kept = file.read_bytes()
    file.unlink()
    way = draw.choice(
        ["fifo", "zeros", "random", "hole", "folder", "loop", "gone", "empty", "socket", "terminal", "out"]
    )
    if way == "fifo":
        os.mkfifo(file)
    elif way == "socket":
        _bind(file)
    elif way == "folder":
        file.mkdir()
    elif way == "hole":
        with file.open("wb") as handle:
            handle.write(kept)
            handle.truncate(HOLE)
    elif way == "empty":
        file.touch()
    elif way != "gone":
        targets = {"zeros": "/dev/zero", "random": "/dev/urandom", "terminal": "/dev/tty", "loop": file.name}
        file.symlink_to(targets.get(way, "/etc/passwd"))
    return f"{file.name} is {way}"


def _bind(file: Path) -> None:
    """A socket's path has to be short, and the process has one working folder: hence a folder's handle."""
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{folder}/{file.name}")
    finally:
        os.close(folder)


def mutate_bytes(good: bytes, draw: Random) -> tuple[str, bytes]:
    """Bits flipped, pieces cut, doubled, zeroed or overwritten; half of the time near one of the ends."""
    while True:
        what, changed = _mutate_bytes(good, draw)
        if changed != good:
            return what, changed


def _mutate_bytes(good: bytes, draw: Random) -> tuple[str, bytes]:
    near = draw.choice((len(good), len(good), min(len(good), 4096)))
    place = draw.randrange(near) if draw.random() < 0.7 else len(good) - 1 - draw.randrange(min(len(good), 4096))
    length = draw.choice((1, 4, 8, 100, 1000))
    way = draw.choice(("flipped", "flipped", "flipped", "ones", "zeroed", "doubled", "removed", "cut", "drawn"))
    if way == "cut":
        return f"cut at {place}", good[:place]
    if way == "flipped":
        changed = bytearray(good)
        count = draw.choice((1, 1, 4, 64))
        for _ in range(count):
            changed[min(len(good) - 1, place + draw.randrange(200))] ^= 1 << draw.randrange(8)
        return f"{count} bits flipped from {place}", bytes(changed)
    piece = {
        "ones": b"\xff" * length,
        "zeroed": bytes(length),
        "doubled": good[place : place + length] * 2,
        "removed": b"",
        "drawn": draw.randbytes(length),
    }[way]
    return f"{length} bytes {way} at {place}", good[:place] + piece + good[place + length :]
