"""The proof on a device: the bundle's reference images, embedded here, against what PyTorch and the export made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle, Variant
from .errors import ImageError
from .feature_maps import Maps
from .fidelity import GATES, Fidelity, compare, compare_maps, cosines, failed_gates
from .golden import PYTORCH, read_golden
from .preprocessing import Pixels, prepare

# JPEG decoders may differ by a rounding step per pixel; a wrong resize, color order or orientation moves whole images.
PIXEL_TOLERANCE = 1.0


@dataclass(frozen=True)
class SelfTest:
    """What a self-test found.

    `to_pytorch`: fidelity to PyTorch's embeddings. `to_export`: lowest cosine to the embeddings that this variant gave
    where it was exported. `pixel_error`: for the encoded reference file that differs most, the mean absolute difference
    between the pixels decoded here and those recorded (0 to 255). The failures say what is out of bounds, in one phrase
    each: `missed_gates` about `to_pytorch`, `moved` about `to_export`, `decoding` about the files. `maps`: of each
    feature map, the lowest agreement with PyTorch's; `missed_maps` is about these.
    """

    images: int
    to_pytorch: Fidelity
    to_export: float
    pixel_error: float
    missed_gates: tuple[str, ...]
    moved: tuple[str, ...]
    decoding: tuple[str, ...]
    maps: dict[str, float]
    missed_maps: tuple[str, ...]

    @property
    def failures(self) -> tuple[str, ...]:
        return (*self.missed_gates, *self.moved, *self.missed_maps, *self.decoding)

    @property
    def passed(self) -> bool:
        return not self.failures


def run_self_test(
    bundle: Bundle,
    variant: Variant,
    engine: str,
    run: Callable[[Pixels], NDArray[np.float32]],
    run_maps: Callable[[Pixels], Maps],
) -> SelfTest:
    """Compares what `run` (prepared pixels to embeddings), `run_maps` and the decoders give here with what the bundle
    recorded."""
    golden = read_golden(bundle)
    vectors = run(golden.images)
    to_pytorch = compare(golden.embeddings[PYTORCH], vectors)
    to_export = float(cosines(golden.of(variant.name, engine), vectors).min())
    mapped = run_maps(golden.images[: max(map(len, golden.maps.values()))]) if golden.maps else {}
    maps = {
        name: compare_maps(expected, mapped[name][: len(expected)]).agreement_min
        for name, expected in golden.maps.items()
    }
    decoded = {name: _decode(bundle, name) for name in golden.files}
    errors = {name: _pixel_error(decoded[name], pixels) for name, pixels in golden.files.items()}
    # A variant that missed its gates at export, and says so, only has to be what it was then.
    missed = failed_gates(to_pytorch, GATES[variant.precision]) if variant.passes else []
    moved = f"lowest cosine to its own embeddings at export {to_export:.6f}, needs ≥ {variant.own_cosine:g}"
    wrong = {name: decoded[name] for name, error in errors.items() if not error <= PIXEL_TOLERANCE}
    return SelfTest(
        images=len(vectors),
        to_pytorch=to_pytorch,
        to_export=to_export,
        pixel_error=max(errors.values(), default=0.0),
        missed_gates=tuple(missed),
        moved=() if to_export >= variant.own_cosine else (moved,),
        maps=maps,
        missed_maps=tuple(
            f"{name}: lowest agreement with PyTorch {found:.6f}, needs ≥ {variant.own_agreement[name]:g}"
            for name, found in maps.items()
            if not found >= variant.own_agreement[name]
        ),
        decoding=(_describe_decoding(wrong, errors, golden.files),) if wrong else (),
    )


def _describe_decoding(wrong: dict[str, Pixels | None], errors: dict[str, float], recorded: dict[str, Pixels]) -> str:
    worst = max(wrong, key=lambda name: errors[name])
    others = f" and {len(wrong) - 1} more of {len(errors)} decode" if len(wrong) > 1 else " decodes"
    cause = _pixel_cause(wrong, recorded)
    return f"{worst}{others} to other pixels than at export (mean difference {errors[worst]:.1f} of 255): {cause}"


def _decode(bundle: Bundle, name: str) -> Pixels | None:
    """The pixels of an encoded reference file as this device decodes them, None if it cannot."""
    try:
        return prepare(bundle.read(name), bundle.preprocessing)
    except ImageError:
        return None


def _pixel_error(decoded: Pixels | None, recorded: Pixels) -> float:
    """The mean absolute difference; infinite for a file that cannot be decoded."""
    return float("inf") if decoded is None else float(np.abs(decoded.astype(np.int16) - recorded).mean())


def _pixel_cause(wrong: dict[str, Pixels | None], recorded: dict[str, Pixels]) -> str:
    """What the decoder or the resizer does differently, judging by the reference files that come out wrong."""
    if any(pixels is None for pixels in wrong.values()):
        return "this device's Pillow cannot decode it"
    swapped = [_pixel_error(pixels[..., ::-1], recorded[name]) for name, pixels in wrong.items() if pixels is not None]
    if max(swapped) <= PIXEL_TOLERANCE:
        return "red and blue are swapped here"
    turned = wrong.get("golden/rotated.jpg")
    if turned is not None and len(wrong) == 1:
        upright = [_pixel_error(np.rot90(turned, quarters), recorded["golden/rotated.jpg"]) for quarters in (1, 2, 3)]
        if min(upright) < 10:
            return "EXIF orientation is ignored here"
    if "golden/large.jpg" in wrong and len(wrong) > 1:
        return "images are resized otherwise here: another filter, or no antialiasing"
    return "such files are decoded otherwise here, or they were changed"
