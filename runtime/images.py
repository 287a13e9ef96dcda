"""Finding the images in a folder, and their labels."""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .errors import ImageError
from .untrusted import open_regular

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})

# Images too, but of kinds that are not read: whoever has some wants to know that they are passed over.
UNREAD = frozenset(
    {".heic", ".heif", ".avif", ".jxl", ".jp2", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".psd"}
)


def find_images(folder: str | Path) -> list[Path]:
    """All images under `folder`, searched recursively, in an order that is the same on every machine.

    Hidden files and folders are passed over, since thumbnails and editors' copies are kept there. Links are followed,
    each folder once. A path to a file gives that file. Raises ImageError if there are no images, or no permission.
    """
    return list(iterate_images(folder))


def iterate_images(folder: str | Path) -> Iterator[Path]:
    """The same one by one, listed folder by folder: what is in memory is the names of the folders above an image."""
    root, endings = Path(folder), tuple(SUFFIXES)
    if _is_file(root):
        yield root
        return
    seen: set[str] = set()
    open_folders, found = [_list_folder(root, seen)], False
    while open_folders:
        entry = next(open_folders[-1], None)
        if entry is None:
            open_folders.pop()
        elif _is_folder(entry):
            open_folders.append(_list_folder(entry.path, seen))
        elif entry.name.lower().endswith(endings):
            found = True
            yield Path(entry.path)
    if not found:
        kinds = " ".join(sorted(suffix[1:] for suffix in SUFFIXES))
        raise ImageError(f"{root}: no images in it or below it (looked for {kinds})")


def _is_file(root: Path) -> bool:
    """Whether this is a file and not a folder. Raises ImageError if it is neither."""
    try:
        if root.is_file():
            return True
        if not root.is_dir():
            raise ImageError(f"{root}: {'not a folder of images' if root.exists() else 'no such folder'}")
    except OSError as error:  # of a folder above
        raise ImageError(f"{root}: cannot be read ({error.strerror})") from error
    return False


def _list_folder(folder: str | Path, seen: set[str]) -> Iterator[os.DirEntry[str]]:
    """What is not hidden in a folder, by name; nothing where it was `seen` before. Raises ImageError.

    Sorted like this, with what is in a folder in its place, paths are in the order of their parts. It also decides on
    the names of images to which two links lead.
    """
    real = os.path.realpath(folder)
    if real in seen:  # a link to a folder above
        return iter(())
    seen.add(real)
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:  # its images would be missing without notice
        raise ImageError(f"{error.filename}: cannot be listed ({error.strerror})") from error
    return iter(sorted(visible, key=lambda entry: entry.name))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def count_unread(folder: str | Path) -> dict[str, int]:
    """How many images of kinds that are not read lie under `folder`, by suffix: {".heic": 12}."""
    names = (name for _, _, names in os.walk(folder, followlinks=False) for name in names)
    suffixes = (name[name.rfind(".", 1) :].lower() for name in names)
    return dict(sorted(Counter(suffix for suffix in suffixes if suffix in UNREAD).items()))


def folder_labels(paths: list[Path], folder: str | Path) -> list[str] | None:
    """The class of each image: the name of the sub-folder of `folder` that it is in.

    None if that says nothing: some images are directly in `folder`, or all in one sub-folder.
    """
    above = len(Path(folder).parts)
    parts = [path.parts[above:] for path in paths]
    if any(len(each) < 2 for each in parts):
        return None
    labels = [each[0] for each in parts]
    return labels if len(set(labels)) > 1 else None


def read_labels(file: str | Path, paths: list[Path], folder: str | Path) -> list[str | None]:
    """The class of each image according to a CSV file, None for images that it leaves out.

    Its first line names the columns, which include `image` (a path below `folder`) and `label`. Raises ImageError,
    naming the file and the line.
    """
    labels = {}
    try:
        with io.TextIOWrapper(open_regular(Path(file)), encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            if not {"image", "label"} <= set(reader.fieldnames or ()):
                raise ImageError(f"{file}: its first line has to name the columns image and label")
            for row in reader:
                if not row["image"] or not row["label"]:
                    raise ImageError(f"{file}: line {reader.line_num} has no image or no label")
                labels[Path(row["image"]).as_posix()] = row["label"]
    except OSError as error:
        raise ImageError(f"{file}: cannot be read ({error.strerror})") from error
    except (csv.Error, ValueError) as error:  # a name with a NUL too
        raise ImageError(f"{file}: not a CSV file ({error})") from error
    found = [labels.get(path.relative_to(folder).as_posix()) for path in paths]
    if not any(found):
        raise ImageError(f"{file}: names none of the images in {folder}; it has to give paths below that folder")
    return found
