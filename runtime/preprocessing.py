"""From any image to the uint8 pixels that a network takes: the same code in training, in export and on the device.

No two engines resize alike, so decoding and resizing are done here, with Pillow; scaling, mean and standard deviation
are part of the network's graph.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard, cast
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from .errors import ImageError, brief
from .untrusted import open_regular

Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]  # left, top, right, bottom
Source = str | Path | bytes | BinaryIO | Image.Image | Pixels

# What may be decoded. Pillow knows many more formats, each of them more surface for a broken or hostile file.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")

# A JPEG is decoded at a half, a quarter or an eighth of its size where that leaves this many times the pixels needed on
# its short side. On photographs, embeddings then have a cosine of 0.994 or more to those after full decoding, 0.9997 on
# average, which is less than INT8 costs. With a margin of 1, these are 0.939 and 0.996 (docs/runtime.md).
REDUCED_MARGIN = 2

# The largest side of a network's input, in pixels.
MOST_SIDE = 4096

# The largest side of an image: resizing takes 32 bytes for each pixel of it, so that a line of 89 million takes 3 GB.
MOST_LENGTH = 2**20

# The scans of a JPEG: it has about ten. One of 11 bytes can take as long as the whole image.
MOST_SCANS = 100

# How an image that is not square is made so.
FITS = ("crop", "squash", "pad")

# A lock for each PIL image that threads are reading, by its id; it is gone when the last of them is done.
_LOADING: WeakValueDictionary[int, threading.Lock] = WeakValueDictionary()
_LOADING_GUARD = threading.Lock()


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a network's input.

    EXIF orientation; RGB, alpha over white; made square as `fit` says, at `image_size` (bicubic, antialiased); then, in
    the graph, `(pixel / 255 - mean) / std` per channel. An image that already has that size is left alone.

    `fit`: "crop" keeps the central square; "squash" keeps the whole image and changes its proportions; "pad" keeps
    both, with borders of the mean color.
    """

    image_size: int
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    fit: str = "crop"

    @property
    def border(self) -> tuple[int, ...]:
        """The color of the borders that "pad" adds: the mean, so that the network's input is 0 there."""
        return tuple(round(255 * value) for value in self.mean)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(value: dict[str, Any]) -> Preprocessing:
        """Raises KeyError, TypeError or ValueError for anything else."""
        mean, std = (tuple(float(each) for each in value[name]) for name in ("mean", "std"))
        side = int(value["image_size"])
        numbers = np.isfinite([*mean, *std]).all() and min(std, default=0) > 0
        if not 1 <= side <= MOST_SIDE or len(mean) != 3 or len(std) != 3 or not numbers or value["fit"] not in FITS:
            raise ValueError("preprocessing out of range")
        return Preprocessing(side, (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]), value["fit"])


def prepare(source: Source, preprocessing: Preprocessing) -> Pixels:
    """One image as uint8 `[image_size, image_size, 3]`, RGB; an array like that is returned. Raises ImageError."""
    side = preprocessing.image_size
    if isinstance(source, np.ndarray) and source.dtype == np.uint8 and source.shape == (side, side, 3):
        return source
    image, box = open_large(source, REDUCED_MARGIN * side)
    if image.size != (side, side):
        image = _resize(image, box, preprocessing, describe(source))
    return np.asarray(image)


def prepare_all(sources: Sequence[Any], preprocessing: Preprocessing) -> Pixels:
    """Images as one array, uint8 `[N, image_size, image_size, 3]`. Raises ImageError at the first unreadable one."""
    return np.stack([prepare(source, preprocessing) for source in sources])


def open_image(source: Source) -> Image.Image:
    """An upright 8-bit RGB image from a path, encoded bytes, an open file, a PIL image or an array (see Encoder.embed).

    Raises ImageError, which names the file.
    """
    return open_large(source)[0]


def open_large(source: Source, enough: int | None = None) -> tuple[Image.Image, Box]:
    """open_image, and the box that the picture fills.

    Where `enough` pixels on the short side are enough, a larger JPEG may be decoded at reduced scale. That takes a
    fraction of the time, and adds a fraction of a pixel where the scale does not divide the size.
    """
    if isinstance(source, np.ndarray):
        _check_array(source)
    elif not is_image(source):
        raise ImageError(
            f"{type(source).__name__} is not an image: give a path, bytes, an open file, a PIL image or a uint8 array"
        )
    try:
        if isinstance(source, np.ndarray):
            return _whole(to_rgb(_from_array(source)))
        if isinstance(source, Image.Image):
            return _whole(to_rgb(_load(source)))
        image, size = _decode(source, enough)
        image, orientation = _upright(image)
        return to_rgb(image), _turn(size, orientation, image.size)
    except ImageError as error:
        raise ImageError(f"{describe(source)}: {error}") from None
    # A broken file can make a decoder raise almost anything; whatever it is, the file cannot be read.
    except Exception as error:
        raise ImageError(f"{describe(source)}: unreadable image ({_reason(error)})") from error


def is_image(source: object) -> bool:
    """Whether this is one image, or the name of one, rather than several of them."""
    if isinstance(source, np.ndarray):
        return source.ndim < 4 and source.dtype.kind not in "OSU"
    return isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)) or _is_file(source)


def describe(source: object) -> str:
    """A name for a source in a message: the path, or what kind of thing it is."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(cast("str", source))
    return f"an image given as {type(source).__name__}"


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode as 8-bit RGB: alpha over white, 16-bit gray divided by 257, float images refused."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return _from_16_bit(image).convert("RGB")
    if image.mode == "F":
        raise ImageError("a float image has no fixed range: save it as 8-bit or 16-bit first")
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image.convert("RGB")


def _is_file(source: object) -> TypeGuard[BinaryIO]:
    return callable(getattr(source, "read", None))


def _decode(source: str | Path | bytes | BinaryIO, enough: int | None) -> tuple[Image.Image, tuple[float, float]]:
    """Reads the pixels of an encoded image, of its first frame if it has several, and their exact width and height."""
    # Not by its path, by which Pillow maps some files into memory: one that is cut off meanwhile would end the process.
    with _open_encoded(source) as file, Image.open(file, formats=FORMATS) as image:
        drafted = None
        if enough is not None and image.format == "JPEG":
            drafted = image.draft(None, (enough, enough))  # the short side decides, whichever way the image is turned
        _check_size(image.width, image.height)
        if image.format == "TIFF":
            _check_tiles(image)
        if image.format in ("JPEG", "MPO"):  # the second is a JPEG that holds others
            _check_scans(file)
        image.load()
        return image, drafted[1][2:] if drafted else image.size


def _open_encoded(source: str | Path | bytes | BinaryIO) -> BinaryIO:
    if isinstance(source, (str, os.PathLike)):
        try:
            return open_regular(Path(source))
        except FileNotFoundError:
            raise ImageError("no such file") from None
        except OSError as error:
            raise ImageError(f"cannot be read ({error.strerror})") from None
    content = source.read() if _is_file(source) else source
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise ImageError("a file opened as text; open it with mode 'rb'")
    return io.BytesIO(content)


def _check_size(width: int, height: int) -> None:
    """Refuses more pixels than Pillow's limit. Pillow itself refuses twice as many, and only in files."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise ImageError(f"too large: {width} × {height} pixels, the limit is {limit} (PIL.Image.MAX_IMAGE_PIXELS)")
    if max(width, height) > MOST_LENGTH:
        raise ImageError(f"too long: {width} × {height} pixels, the limit of a side is {MOST_LENGTH}")


def _check_tiles(tiff: Any) -> None:
    """Refuses tiles larger than an image may be: one is decoded whole, however little of it the image shows."""
    _check_size(*(tiff.tag_v2.get(tag, 0) for tag in (ExifTags.Base.TileWidth, ExifTags.Base.TileLength)))


def _check_scans(file: BinaryIO) -> None:
    """Refuses a JPEG with more scans than any encoder makes."""
    place = file.tell()
    scans = file.read().count(b"\xff\xda")
    file.seek(place)
    if scans > MOST_SCANS:
        raise ImageError(f"a JPEG of {scans} scans, {MOST_SCANS} are the most")


def _whole(image: Image.Image) -> tuple[Image.Image, Box]:
    return image, (0, 0, *image.size)


def _load(image: Image.Image) -> Image.Image:
    """A PIL image upright, its pixels read.

    An image may be given several times, to several threads, and Pillow can read it in one thread only.
    """
    _check_size(*image.size)
    with _LOADING_GUARD:
        lock = _LOADING.setdefault(id(image), threading.Lock())
    with lock:
        image.load()
        return _upright(image)[0]


def _upright(image: Image.Image) -> tuple[Image.Image, int]:
    """An image turned as its EXIF orientation says, and that orientation; broken EXIF data counts as none."""
    try:
        return ImageOps.exif_transpose(image), image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return image, 1


def _turn(size: tuple[float, float], orientation: int, turned: tuple[int, int]) -> Box:
    """The box of a picture of that size, which was at the top left, in the image that was turned upright."""
    width, height = size[::-1] if orientation in (5, 6, 7, 8) else size
    left = turned[0] - width if orientation in (2, 3, 6, 7) else 0
    top = turned[1] - height if orientation in (3, 4, 7, 8) else 0
    return left, top, left + width, top + height


def _from_16_bit(image: Image.Image) -> Image.Image:
    """0..65535 to 0..255. Pillow's own conversion clips at 255, which turns most such images white."""
    values = np.asarray(image).astype(np.int64).clip(0, 65535)
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _check_array(array: NDArray[Any]) -> None:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in array.shape:
        raise ImageError(
            f"an array of {array.dtype} {list(array.shape)} is not an image: give uint8 [height, width, 1, 3 or 4]"
        )


def _from_array(array: NDArray[Any]) -> Image.Image:
    _check_size(array.shape[1], array.shape[0])
    return Image.fromarray(array[:, :, 0] if array.shape[2:] == (1,) else array)


def _resize(image: Image.Image, box: Box, preprocessing: Preprocessing, name: str) -> Image.Image:
    """The box as a square of `image_size` pixels, in one step, so that no pixel is resampled twice."""
    side = preprocessing.image_size
    width, height = box[2] - box[0], box[3] - box[1]
    if 0 in image.size:
        raise ImageError(f"{name}: an image without pixels")
    if preprocessing.fit == "squash":
        return image.resize((side, side), Image.Resampling.BICUBIC, box)
    if preprocessing.fit == "pad":
        scale = side / max(width, height)
        fitted = max(1, round(width * scale)), max(1, round(height * scale))
        small = image.resize(fitted, Image.Resampling.BICUBIC, box)
        square = Image.new("RGB", (side, side), preprocessing.border)
        square.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
        return square
    short = min(width, height)
    left, top = box[0] + (width - short) / 2, box[1] + (height - short) / 2
    return image.resize((side, side), Image.Resampling.BICUBIC, box=(left, top, left + short, top + short))


def _reason(error: Exception) -> str:
    """What an error says, on one line; Pillow's mention of the file is dropped."""
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not one of {', '.join(FORMATS)}"
    return brief(error)
