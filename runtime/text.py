"""Text for people: safe to show, since names of files may hold anything but a slash and a NUL, and in plain English."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

# All but tab and line feed; the last two turn the direction of writing.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Text with its control characters spelled out: a file's name may hold what moves the cursor or hides text."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def to_text(name: str | Path) -> str:
    """A file's name as text: Linux allows bytes that are none, which are written as their numbers."""
    return str(name).encode(errors="backslashreplace").decode()


def count(number: int, noun: str) -> str:
    """ "1 image", "2 images"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def join(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
