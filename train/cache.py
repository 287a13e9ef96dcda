"""Pictures on disk, decoded once, for any number of runs.

A cache is a folder of shards: the pixels of many pictures in one file, and an index beside it, which is written last. A
picture is used as long as the file of its image has the size and the times that it had. Nothing is needed of a cache:
what it lacks is decoded from the image, and the pixels are the same.
"""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from ..runtime.errors import ImageError, RunError, brief
from ..runtime.files import whole_file
from ..runtime.preprocessing import Preprocessing
from ..runtime.progress import Progress, report_progress
from .pictures import MARGIN, Picture, read_picture

log = logging.getLogger(__name__)
T = TypeVar("T")
Stamp = tuple[int, int, int]

# The stamp of a file that is not there.
NOWHERE: Stamp = (-1, -1, -1)

# Goes up when read_picture makes other pixels of the same image.
VERSION = 2
PIXELS, INDEX = ".pixels", ".npz"
# What an interrupted filling loses at most.
SHARD_BYTES = 2**26
# Images whose files are checked for changes when a cache is opened. If none of these has changed, the others are
# checked as they are read.
CHECKED = 10_000
# Pictures that a worker hands over at once, and the bytes that they may take.
CHUNK, CHUNK_BYTES = 32, 2**23


@dataclass(frozen=True)
class Cache:
    """What a cache has of a run's images, by their places in its list.

    `shard` `[N]`: the number of the shard, -1 if there is none; `stamps` `[N, 3]`: of the files that were decoded (see
    _stamp); `offsets` `[N]`: where in a shard the pixels begin; `shapes` `[N, 2]`: height and width; `sizes` `[N, 2]`:
    width and height of the image.
    """

    paths: Sequence[Path]
    shards: list[Path]
    shard: NDArray[np.int64]
    stamps: NDArray[np.int64]
    offsets: NDArray[np.int64]
    shapes: NDArray[np.int64]
    sizes: NDArray[np.float64]

    def read(self, row: int) -> Picture | None:
        """A picture, or None if it is not there (any more), or its image has changed."""
        number, (height, width), size = int(self.shard[row]), self.shapes[row].tolist(), self.sizes[row].tolist()
        if number < 0 or self.is_stale(row):
            return None
        # Not a memory map: it would hold its file open, and a file that is cut off meanwhile would kill the process.
        try:
            pixels = np.fromfile(self.shards[number], np.uint8, 3 * height * width, offset=int(self.offsets[row]))
        except OSError:
            return None
        if len(pixels) < 3 * height * width:
            return None
        return Picture(pixels.reshape(height, width, 3), (size[0], size[1]))

    def is_stale(self, row: int) -> bool:
        """Whether an image that is held has changed since."""
        return tuple(self.stamps[row].tolist()) != _stamp(self.paths[row])


def open_cache(folder: Path, paths: Sequence[Path], preprocessing: Preprocessing, workers: int) -> Cache:
    """The cache in a folder, filled with the pictures of all images that can be read.

    If the disk is too full for all of them, it says so and keeps what fits. Raises RunError for a folder that cannot be
    written.
    """
    home = folder / name_folder(preprocessing)
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{{cache}}: cannot be written ({error.strerror})", cache=folder) from error
    cache = _find(home, paths, {})
    stamps = {row: _stamp(paths[row]) for row in _find_doubtful(cache)}
    if (cache.shard[list(stamps)] >= 0).any():
        cache = _find(home, paths, stamps)
    missing = {row: stamp for row, stamp in stamps.items() if cache.shard[row] < 0 and stamp != NOWHERE}
    if not missing:
        return cache
    log.info(f"{home}: has {len(paths) - len(missing)} of {len(paths)} pictures; decoding the others")
    try:
        _fill(home, paths, missing, preprocessing, workers)
    except OSError as error:
        log.warning(f"{home}: cannot be filled ({error.strerror}); pictures that it lacks are decoded in each epoch")
    return _find(home, paths, stamps)


def name_folder(preprocessing: Preprocessing) -> str:
    """What made pictures, in words: those that are made otherwise lie apart."""
    borders = ["", *map(str, preprocessing.border)] if preprocessing.fit == "pad" else []
    how = f"{preprocessing.fit}{'-'.join(borders)}"
    return f"pictures-{VERSION}-{preprocessing.image_size}px-{how}-pillow-{PIL.__version__}"


def _stamp(path: Path) -> Stamp:
    """What changes when a file does: its size and times, of which the last is when it changed; or NOWHERE."""
    try:
        found = path.stat()
    except OSError:
        return NOWHERE
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _find_doubtful(cache: Cache) -> list[int]:
    """The rows that a cache does not hold, and those whose image has changed."""
    held = np.flatnonzero(cache.shard >= 0)
    sample = held[:: max(1, len(held) // CHECKED)].tolist()
    stale = [row for row in sample if cache.is_stale(row)]
    if stale and len(sample) < len(held):
        stale = [row for row in held.tolist() if cache.is_stale(row)]
    return sorted([*np.flatnonzero(cache.shard < 0).tolist(), *stale])


def _find(home: Path, paths: Sequence[Path], stamps: Mapping[int, Stamp]) -> Cache:
    """What a folder has of the images.

    Of an image that has changed there are several pictures: the one of its stamp counts, if that is among `stamps`,
    else the latest.
    """
    wanted, checked = np.full((len(paths), 3), -1, np.int64), np.zeros(len(paths), bool)
    if stamps:
        wanted[list(stamps)] = list(stamps.values())
        checked[list(stamps)] = True
    places = {str(path.absolute()): row for row, path in enumerate(paths)}
    count = len(paths)
    cache = Cache(
        paths=paths,
        shards=[],
        shard=np.full(count, -1),
        stamps=np.full((count, 3), -1, np.int64),
        offsets=np.zeros(count, np.int64),
        shapes=np.zeros((count, 2), np.int64),
        sizes=np.zeros((count, 2)),
    )
    for file in sorted(home.glob(f"[!.]*{INDEX}")):  # others are being written
        try:
            names, found = _read_index(file)
        except Exception as error:  # a damaged archive raises almost anything
            log.warning(f"{file}: damaged, and left out ({brief(error)}); it can be deleted")
            continue
        rows = np.array([places.get(name, -1) for name in names], np.int64)
        latest, exact = found["stamps"][:, 2] > cache.stamps[rows, 2], (found["stamps"] == wanted[rows]).all(1)
        known = (rows >= 0) & np.where(checked[rows], exact, latest)
        cache.shard[rows[known]] = len(cache.shards)
        for name in ("stamps", "offsets", "shapes", "sizes"):
            getattr(cache, name)[rows[known]] = found[name][known]
        cache.shards.append(file.with_suffix(PIXELS))
    return cache


def _read_index(file: Path) -> tuple[list[str], dict[str, NDArray[Any]]]:
    """Paths of images, and a row for each. Raises anything for a shard that is not whole."""
    with np.load(file, allow_pickle=False) as archive:
        found = {name: archive[name] for name in ("names", "stamps", "offsets", "shapes", "sizes")}
    names = os.fsdecode(found["names"].tobytes()).split("\0")
    ends = found["offsets"] + 3 * found["shapes"].prod(1)
    lengths = {len(each) for name, each in found.items() if name != "names"}
    whole = found["offsets"].min() >= 0 and ends.max() <= file.with_suffix(PIXELS).stat().st_size
    if lengths != {len(names)} or not whole or found["shapes"].min() < 1:
        raise ValueError("the index does not fit the pixels")
    return names, found


def _fill(
    home: Path,
    paths: Sequence[Path],
    stamps: Mapping[int, Stamp],
    preprocessing: Preprocessing,
    workers: int,
) -> None:
    """Decodes the pictures of the rows that have `stamps`, and writes them, a shard at a time."""
    rows = list(stamps)
    waiting: list[tuple[int, Picture]] = []
    size = done = 0
    chunk = max(1, min(CHUNK, CHUNK_BYTES // (3 * (MARGIN * preprocessing.image_size) ** 2)))
    loader = DataLoader(
        _Pictures(paths, rows, preprocessing),
        chunk,
        num_workers=workers,
        collate_fn=_as_it_is,
        generator=torch.Generator(),  # draws nothing from the run's
    )
    for some in loader:
        read = [(row, picture) for row, picture in some if picture is not None]
        waiting += read
        size += sum(picture.pixels.size for _, picture in read)
        done += len(some)
        report_progress(Progress("caching", done, len(rows)))
        if size >= SHARD_BYTES:
            _write_shard(home, paths, stamps, waiting)
            waiting, size = [], 0
    if waiting:
        _write_shard(home, paths, stamps, waiting)


class _Pictures(Dataset[tuple[int, Picture | None]]):
    def __init__(self, paths: Sequence[Path], rows: list[int], preprocessing: Preprocessing) -> None:
        self._paths, self._rows, self._preprocessing = paths, rows, preprocessing

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> tuple[int, Picture | None]:
        row = self._rows[place]
        try:
            return row, read_picture(self._paths[row], self._preprocessing)
        except ImageError:  # named when it is trained on
            return row, None


def _as_it_is(items: list[T]) -> list[T]:
    return items


def _write_shard(
    home: Path, paths: Sequence[Path], stamps: Mapping[int, Stamp], pictures: list[tuple[int, Picture]]
) -> None:
    rows, sizes = [row for row, _ in pictures], [picture.pixels.size for _, picture in pictures]
    if shutil.disk_usage(home).free < 2 * sum(sizes):  # leaves some to others
        raise OSError(None, "no space is left")
    shard = home / uuid.uuid4().hex
    with whole_file(shard.with_suffix(PIXELS)) as part, part.open("wb") as file:
        for _, picture in pictures:
            file.write(picture.pixels.tobytes())
    with whole_file(shard.with_suffix(INDEX)) as part:
        np.savez(
            part,
            names=np.frombuffer(b"\0".join(os.fsencode(paths[row].absolute()) for row in rows), np.uint8),
            stamps=np.array([stamps[row] for row in rows], np.int64),
            offsets=np.cumsum([0, *sizes[:-1]]),
            shapes=np.array([picture.pixels.shape[:2] for _, picture in pictures]),
            sizes=np.array([picture.size for _, picture in pictures]),
        )
