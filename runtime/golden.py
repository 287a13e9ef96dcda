"""A bundle's reference: images with their embeddings at export, and encoded files with their pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import GOLDEN, Bundle
from .errors import BundleError
from .feature_maps import Maps
from .fidelity import Vectors
from .preprocessing import Pixels
from .untrusted import load_arrays

PYTORCH = "pytorch"
_PIXELS, _MAP = "pixels:", "map:"


@dataclass(frozen=True)
class Golden:
    """`images`: uint8 `[N, H, W, 3]`. `embeddings`: float32 `[N, D]`, under "pytorch" and under each variant's name, by
    the engine that it was judged on; for other engines that ran it at export, under "int8.onnx:openvino".

    `files`: the pixels, uint8 `[H, W, 3]`, of each encoded file, under its name in the bundle. `maps`: PyTorch's
    feature maps of the first images, float32 `[M, C, H, W]`, M ≥ 1.
    """

    images: Pixels
    embeddings: dict[str, Vectors]
    files: dict[str, Pixels]
    maps: Maps

    def of(self, variant: str, engine: str) -> Vectors:
        """What a variant gave at export on this engine, or else on the one that it was judged on."""
        return self.embeddings.get(name_of(variant, engine), self.embeddings[variant])

    def to_arrays(self) -> dict[str, Any]:
        """The arrays of golden.npz."""
        files = {f"{_PIXELS}{name}": pixels for name, pixels in self.files.items()}
        maps = {f"{_MAP}{name}": each for name, each in self.maps.items()}
        return {"images": self.images, **self.embeddings, **files, **maps}


def name_of(variant: str, engine: str) -> str:
    """Under which name a variant's embeddings by another engine are kept."""
    return f"{variant}:{engine}"


def read_golden(bundle: Bundle) -> Golden:
    """Reads golden.npz and checks its hash. Raises BundleError where it is not what the manifest's variants need."""
    file = bundle.path / GOLDEN
    try:
        arrays = load_arrays(bundle.read(GOLDEN))
        images = arrays.pop("images")
        files = {name.removeprefix(_PIXELS): arrays.pop(name) for name in list(arrays) if name.startswith(_PIXELS)}
        maps = {each.name: arrays.pop(f"{_MAP}{each.name}") for each in bundle.features}
        wanted = {name: arrays[name] for name in (PYTORCH, *bundle.variants)}
        wanted |= {name: each for name, each in arrays.items() if name.partition(":")[0] in bundle.variants}
    except (ValueError, KeyError) as error:
        raise BundleError(f"{file}: lacks reference images or embeddings ({error})") from error
    side = bundle.preprocessing.image_size
    _check(file, "images", images, np.uint8, (*images.shape[:1], side, side, 3))
    for name, pixels in files.items():
        _check(file, name, pixels, np.uint8, (side, side, 3))
    for name, vectors in wanted.items():
        _check(file, name, vectors, np.float32, (max(len(images), 1), bundle.embedding_size))
    for each in bundle.features:
        some = min(max(maps[each.name].shape[:1], default=0), len(images))
        _check(file, f"the map of {each.name}", maps[each.name], np.float32, (max(some, 1), *each.shape))
    return Golden(images, wanted, files, maps)


def _check(file: object, name: str, array: NDArray[Any], kind: type, shape: tuple[int, ...]) -> None:
    if array.dtype != kind or array.shape != shape:
        is_, wants = f"{array.dtype} {list(array.shape)}", f"{np.dtype(kind)} {list(shape)}"
        raise BundleError(f"{file}: {name} is {is_}, has to be {wants}; copy it from the original bundle")
