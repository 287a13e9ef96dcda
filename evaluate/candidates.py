"""What `compare` is given by name, opened: raw pixels, a bundle's precisions, a model file, a run, a start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..models.eager import EagerEncoder
from ..models.encoders import open_encoder
from ..runtime.bundle import MANIFEST, Bundle
from ..runtime.encoder import Encoder
from ..runtime.errors import UsageError
from ..runtime.fidelity import Vectors, unit_rows
from ..runtime.golden import PYTORCH
from ..runtime.preprocessing import Pixels, Preprocessing
from .comparison import RAW
from .embedding import Embed
from .raw import RAW_SIDE, embed_raw

RAW_NAME = "raw"
# Raw pixels are averaged from images of this side, as from those of a small network.
RAW_INPUT = 4 * RAW_SIDE


@dataclass(frozen=True)
class Candidate:
    """An encoder to compare, under a name of its own. `run`: from prepared images to vectors `[N, D]` of unit length.

    `size`: of the model, in bytes; None for raw pixels, which nobody ships and nothing times. `original`: the name of
    the candidate whose vectors it is to reproduce.
    """

    name: str
    run: Embed
    preprocessing: Preprocessing
    engine: str = PYTORCH
    size: int | None = None
    original: str | None = None


def open_candidates(sources: Sequence[str]) -> list[Candidate]:
    """The candidates that each source means: "raw", a bundle, or what open_encoder takes.

    A bundle gives one for each precision that is here, the default's first. Raises UsageError for a source that is
    given twice, and what open_encoder raises.
    """
    check_distinct(sources)
    return [candidate for source in sources for candidate in _open(source)]


def check_distinct(sources: Sequence[str]) -> None:
    """Raises UsageError for a source that is given twice."""
    places = [Path(source).resolve() for source in sources]
    for row, place in enumerate(places):
        if place in places[:row]:
            raise UsageError(f"{sources[row]} is given twice")


def raw_candidate(preprocessing: Preprocessing | None = None) -> Candidate:
    """Raw pixels, from images prepared as a network's, or at 64 px."""
    return Candidate(RAW, _embed_raw, preprocessing or Preprocessing(RAW_INPUT), engine="")


def _embed_raw(pixels: Pixels) -> Vectors:
    return unit_rows(embed_raw(pixels))


def _open(source: str) -> list[Candidate]:
    path = Path(source)
    if source == RAW_NAME:
        if path.exists():
            raise UsageError(f"{source} is a name for raw pixels, and a path here; write ./{source} for the path")
        return [raw_candidate()]
    if (path / MANIFEST).exists():
        return _open_bundle(source)
    encoder = open_encoder(source)
    if isinstance(encoder, EagerEncoder):
        tensors = encoder.network.state_dict().values()
        size = sum(each.numel() * each.element_size() for each in tensors)
        return [Candidate(source, encoder.run, encoder.preprocessing, PYTORCH, size)]
    assert isinstance(encoder, Encoder)
    return [Candidate(source, encoder.run, encoder.preprocessing, encoder.engine, path.stat().st_size)]


def _open_bundle(source: str) -> list[Candidate]:
    bundle = Bundle.open(source)
    here = [each for each in (bundle.default, *bundle.variants.values()) if bundle.holds(each)]
    # If no file is here, "auto" says what is missing.
    names = [bundle.best_known(each) for each in dict.fromkeys(each.precision for each in here)] or ["auto"]
    return name_candidates(source, bundle, [Encoder(source, each) for each in names])


def name_candidates(source: str, bundle: Bundle, encoders: Sequence[Encoder]) -> list[Candidate]:
    """Candidates named after a bundle and a precision each, of which the FP32 one is what others are to reproduce."""
    variants = [bundle.variants[each.variant] for each in encoders]
    exact = f"{source} fp32" if "fp32" in [each.precision for each in variants] else None
    return [
        Candidate(
            f"{source} {variant.precision}",
            encoder.run,
            encoder.preprocessing,
            encoder.engine,
            bundle.size(variant),
            None if variant.precision == "fp32" else exact,
        )
        for encoder, variant in zip(encoders, variants, strict=True)
    ]
