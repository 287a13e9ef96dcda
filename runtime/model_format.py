"""What a model file format is here: how its files are named, checked and read. `model_file.py` lists the formats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ModelFormat:
    """A file format for models.

    `name`: "onnx", as in manifests and in `Backend.formats`. `suffixes`: those of a variant's files, the model's
    first; the files share a stem. `check` takes the bytes of its files and returns how many feature maps the model
    gives beside its embeddings; it raises ValueError, with a reason, where they are damaged or unsafe to load.
    `read_metadata` gives the text stored under a key in a model file, or None; ValueError if there is no reading it.
    """

    name: str
    suffixes: tuple[str, ...]
    check: Callable[[Sequence[bytes]], int]
    read_metadata: Callable[[bytes, str], str | None]

    @property
    def stands_alone(self) -> bool:
        """Whether one file is the whole model, and can be used without its bundle."""
        return len(self.suffixes) == 1
