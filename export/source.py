"""What an export starts from: what is asked, a run's encoder, and its calibration images."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from ..models.network import InferenceNetwork, embed_pixels
from ..models.tail import Linear, build_tail, find_components, fold_projector, shorten
from ..models.weights import DESCRIPTION, WEIGHTS, EncoderSpec, load_encoder, read_description, serialize_weights
from ..runtime.errors import ImageError, RunError, UsageError
from ..runtime.fidelity import LEAST_FOR_OVERLAP, Vectors, neighbor_overlap
from ..runtime.files import load_arrays
from ..runtime.images import find_images
from ..runtime.preprocessing import Pixels, Preprocessing, prepare

FORMATS = ("onnx", "openvino")
TARGETS = ("cpu-vnni", "cpu-avx2", "arm")
# Of the calibration images, this many set the ranges of INT8; the rest judge it, unseen.
MOST_TO_CALIBRATE = 300
# As many as training keeps in a run.
MOST_TO_DRAW = 512
# With fewer calibration images than this, INT8's ranges and its verdict are guesses.
FEW = 100


@dataclass(frozen=True)
class Wanted:
    """What is asked of an export.

    `network`: "online", the backbone that learned, or "target", its moving average. `target`: the CPU that INT8's
    numbers are chosen for. `calibration`: a folder, whose images calibrate and judge in place of the run's. `finetune`:
    where nothing else keeps INT8 good, fine-tune the network for it. `no_images`: synthetic images in the bundle, none
    of a user's. `with_projector`: projections in place of embeddings. `dimensions`: shorter vectors, by the directions
    that keep most of the calibration images.
    """

    int8: bool = False
    fp16: bool = False
    formats: tuple[str, ...] = FORMATS
    target: str = TARGETS[0]
    network: str = "online"
    calibration: Path | None = None
    finetune: bool = True
    no_images: bool = False
    with_projector: bool = False
    dimensions: int | None = None


@dataclass(frozen=True)
class Source:
    """A run as export sees it. `calibrate` and `judge` are disjoint, uint8 `[N, H, W, 3]`."""

    spec: EncoderSpec
    network: InferenceNetwork
    weights: bytes
    calibrate: Pixels
    judge: Pixels
    provenance: dict[str, Any]

    @cached_property
    def reference(self) -> Vectors:
        """PyTorch's embeddings of `judge`, `[N, D]`: what every variant is compared with."""
        return embed_pixels(self.network, self.judge)


def load_source(run: Path, wanted: Wanted, note: Callable[[str], None] = lambda _: None) -> Source:
    """Reads a run. `note` is told of images that cannot be read, and of what shorter vectors lose.

    Raises RunError, naming the file and what to do, ImageError, UsageError.
    """
    network, folder = wanted.network, wanted.calibration
    try:
        spec, provenance = read_description(run)
        weights = (run / WEIGHTS).read_bytes() if network == "online" else read_target(run / "last.pt")
    except FileNotFoundError:
        raise RunError(f"{run}: {_what_is_missing(run)}") from None
    except OSError as error:
        raise RunError(f"{run / WEIGHTS}: unreadable ({error})") from error
    backbone = load_encoder(weights, spec, str(run / WEIGHTS))
    if folder is None:
        images = _load_calibration(run / "calibration.npz", spec.preprocessing.image_size)
    else:
        images = draw_images(folder, spec.preprocessing, MOST_TO_DRAW, note)
        if len(images) < 2:
            raise ImageError(f"{folder}: has one readable image; to calibrate and to judge takes two, better hundreds")
    most = min(MOST_TO_CALIBRATE, len(images) * 3 // 4)
    calibrate, judge = images[:most], images[most:]
    layers = fold_projector(_read_projector(run / "last.pt", network)) if wanted.with_projector else []
    if wanted.dimensions is not None:
        layers = _shorten(backbone, spec, layers, wanted.dimensions, calibrate, judge, note)
    encoder = InferenceNetwork(backbone, spec.preprocessing, build_tail(layers))
    if layers:
        weights = serialize_weights(backbone, encoder.tail)
        spec = replace(spec, embedding_size=len(layers[-1][0]))
    asked = {"network": network, "with_projector": wanted.with_projector, "dimensions": wanted.dimensions}
    provenance = {**provenance, **asked}
    return Source(spec, encoder, weights, calibrate, judge, provenance)


def _shorten(
    backbone: nn.Module,
    spec: EncoderSpec,
    layers: list[Linear],
    dimensions: int,
    calibrate: Pixels,
    judge: Pixels,
    note: Callable[[str], None],
) -> list[Linear]:
    """The tail with its vectors projected on fewer dimensions; says how many neighbors that keeps."""
    whole = InferenceNetwork(backbone, spec.preprocessing, build_tail(layers))
    embeddings = embed_pixels(whole, calibrate)
    most = min(embeddings.shape)
    if not 1 <= dimensions <= most:
        raise UsageError(f"--dim {dimensions}: has to be 1 to {most}, the embedding's length or the calibration images")
    shorter = shorten(layers, find_components(embeddings, dimensions))
    short = InferenceNetwork(backbone, spec.preprocessing, build_tail(shorter))
    if len(judge) >= LEAST_FOR_OVERLAP:
        kept = neighbor_overlap(embed_pixels(whole, judge), embed_pixels(short, judge))
        note(f"{dimensions} of {embeddings.shape[1]} dimensions keep {kept:.3f} of the ten nearest neighbors")
    return shorter


def draw_images(folder: Path, preprocessing: Preprocessing, most: int, note: Callable[[str], None]) -> Pixels:
    """Up to `most` images from all over a folder, always the same ones, uint8 `[N, H, W, 3]`; one at a time is decoded.

    `note` is told of those that cannot be read. Raises ImageError if none can.
    """
    paths = find_images(folder)
    pixels = []
    for place in np.random.default_rng(0).permutation(len(paths)):
        try:
            pixels.append(prepare(paths[place], preprocessing))
        except ImageError as error:
            note(f"left out: {error}")
        if len(pixels) == most:
            break
    if not pixels:
        raise ImageError(f"{folder}: none of its {len(paths)} images can be read")
    return np.stack(pixels)


def read_target(checkpoint: Path) -> bytes:
    """The target backbone of a run's checkpoint, as the bytes of a safetensors file. Raises RunError."""
    return safetensors.torch.save(_read_part(checkpoint, "target_backbone."))


def _read_projector(checkpoint: Path, network: str) -> dict[str, Tensor]:
    if not checkpoint.exists():
        raise RunError(f"{checkpoint}: not there, and it alone holds the projector; export without --with-projector")
    return _read_part(checkpoint, "projector." if network == "online" else "target_projector.")


def _read_part(checkpoint: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors of a part of BYOL in a run's checkpoint. Raises OSError and RunError."""
    content = io.BytesIO(checkpoint.read_bytes())
    try:
        state = torch.load(content, map_location="cpu", weights_only=True)["byol"]
        return {key.removeprefix(prefix): state[key].contiguous() for key in state if key.startswith(prefix)}
    except Exception as error:  # whatever a damaged pickle raises
        what = "--with-projector" if "projector" in prefix else "--network target"
        raise RunError(f"{checkpoint}: damaged, or not of a run; export without {what}") from error


def _what_is_missing(run: Path) -> str:
    if not run.is_dir():
        return "no such run; `byol-edge train IMAGES --out RUN` makes one"
    if (run / WEIGHTS).exists() and (run / DESCRIPTION).exists():
        return "holds no last.pt, where the target network is; export without --network target"
    if (run / "config.json").exists():
        return "the run has no finished epoch yet; let `byol-edge train … --resume` finish one"
    return "not a run: it holds no encoder.json"


def _load_calibration(file: Path, side: int) -> Pixels:
    if not file.exists():
        raise RunError(
            f"{file.parent}: keeps no images to calibrate with and to judge by; give some: --calibration DIR"
        )
    try:
        images = load_arrays(file)["images"]
    except (ValueError, KeyError) as error:
        raise RunError(f"{file}: no calibration images ({error}); `train --resume` writes them again") from error
    if images.dtype != np.uint8 or images.shape[1:] != (side, side, 3) or len(images) < 2:
        raise RunError(f"{file}: {images.dtype} {list(images.shape)}, not two or more images of {side} px")
    return images
