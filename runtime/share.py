"""Shares of a folder's images, for processes that know nothing of each other, such as a job array's."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from .errors import UsageError, VectorError
from .identity import Maker
from .images import iterate_images
from .vectors import load_names, load_vectors, write_vectors

# File names of parts have five digits, as those of data sets do.
MOST_SHARES = 99_999


@dataclass(frozen=True)
class Share:
    """Share `number`, from 0 to `of` − 1, of a folder's images.

    Which share an image is in depends on its path below the folder alone, so that images that are added or deleted move
    no others.
    """

    number: int
    of: int

    def find_images(self, folder: str | Path) -> Iterator[Path]:
        """The images under `folder` that are in this share, in the order of iterate_images. Raises ImageError."""
        above = len(Path(folder).parts)
        for path in iterate_images(folder):
            name = os.fsencode("/".join(path.parts[above:]))
            if int.from_bytes(blake2b(name, digest_size=8).digest(), "big") % self.of == self.number:
                yield path

    def name_file(self, out: Path) -> Path:
        """Where this share of `out` is written: "vectors-00003-of-00016.parquet"."""
        return out.with_name(f"{out.stem}-{self.number:05}-of-{self.of:05}{out.suffix}")


WHOLE = Share(0, 1)


def read_share(text: str) -> Share:
    """The share that "3/16" means. Raises UsageError."""
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if found is None:
        raise UsageError("{shards}: has to be I/N, such as 3/16", shards=text)
    number, of = map(int, found.groups())
    if not 1 <= of <= MOST_SHARES:
        raise UsageError(f"{{shards}}: N has to be from 1 to {MOST_SHARES}", shards=text)
    if number >= of:
        raise UsageError(f"{{shards}}: the shares of {of} are 0/{of} to {of - 1}/{of}, counted from 0", shards=text)
    return Share(number, of)


def join_vectors(parts: Sequence[str | Path], out: str | Path) -> int:
    """Joins files of vectors, such as those of all shares, into `out`, in the order given. Returns how many there are.

    One file at a time is in memory. Raises UsageError if one is given twice or a share is missing, VectorError if they
    are of different models or engines, and ByolEdgeError if one is unreadable.
    """
    paths = [Path(part) for part in parts]
    if not paths:
        raise UsageError("no files of vectors to join")
    _check_complete(paths)
    names = [load_names(path) for path in paths]
    makers = [Maker(each.model, each.engine) for each in names]
    for path, made_by in zip(paths, makers, strict=True):
        if made_by != makers[0]:
            raise VectorError(f"{path} holds vectors by {made_by}, and {paths[0]} by {makers[0]}: they do not mix")
    first = load_vectors(paths[0])
    total = sum(len(each.sources) for each in names)
    write_vectors(Path(out), map(load_vectors, paths), (total, first.vectors.shape[1]), names[0])
    return total


def _check_complete(paths: Sequence[Path]) -> None:
    """Raises UsageError where a file is given twice, or the names are those of shares and one is missing."""
    given = Counter(paths)
    for path, times in given.items():
        if times > 1:
            raise UsageError(f"{path} is given twice")
    found = re.fullmatch(r"(.*)-[0-9]{5}-of-([0-9]{5})", paths[0].stem)
    if found is None:
        return
    whole, of = paths[0].with_name(f"{found[1]}{paths[0].suffix}"), int(found[2])
    for number in range(of):
        if (expected := Share(number, of).name_file(whole)) not in given:
            raise UsageError(f"{expected} is missing: its share is not embedded yet, or was not given")
