"""The sources of a report, opened. Of its bundle, every variant on every engine; what is broken is set apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..evaluate.candidates import RAW_NAME, Candidate, check_distinct, name_candidates, open_candidates, raw_candidate
from ..evaluate.comparison import RAW
from ..evaluate.embedding import Embed
from ..evaluate.reference import Reference, load_reference, load_untrained
from ..models.network import embed_pixels
from ..runtime.bundle import MANIFEST, Bundle
from ..runtime.choosing import AUTO, choose, find_pairs
from ..runtime.encoder import Encoder
from ..runtime.errors import BundleError, ByolEdgeError, UsageError
from ..runtime.fidelity import Vectors
from ..runtime.preprocessing import Pixels
from ..runtime.run import Provenance, Run

PYTORCH, UNTRAINED = "PyTorch", "untrained"
# What is wrong with a bundle whatever the variant.
ALL = "all variants"
# What is gathered beside vectors: the images themselves, in small.
TILES = "tiles"


@dataclass(frozen=True)
class OpenedBundle:
    """`candidates`: PyTorch's side, the same network untrained, and each variant that is here, by name: "PyTorch",
    "untrained", "variant on engine"; one that fails gives NaN from then on. `variants`: the encoders behind the last.
    `best`: of each precision, the name of the variant that an Encoder takes. `reference`: PyTorch's side, None where
    `broken` says why there is none.

    `broken`: what cannot be opened or run, by name, and why. It grows while images are embedded.
    """

    source: str
    bundle: Bundle
    candidates: dict[str, Candidate]
    variants: dict[str, Encoder]
    best: dict[str, str]
    reference: Reference | None
    broken: dict[str, str]

    @property
    def default(self) -> str | None:
        """The default variant on the engine that an Encoder takes for it; None where its files are not here."""
        pairs = find_pairs(self.bundle)
        return next((name_variant(*each) for each in pairs if each[0] == self.bundle.default.name), None)

    @property
    def compared(self) -> dict[str, Candidate]:
        """What the comparison shows of it, one per precision, by the variant's name."""
        names = list(self.best.values())
        return dict(
            zip(names, name_candidates(self.source, self.bundle, [self.variants[name] for name in names]), strict=True)
        )


@dataclass(frozen=True)
class Sources:
    """`subject`: the name of the source that the details are about, and where it comes from, `provenance`.

    `bundle`: the subject, if it is one. `others`: what it is compared with, raw pixels first. `run`: the first source
    that is a run.
    """

    subject: str
    provenance: Provenance
    bundle: OpenedBundle | None
    others: list[Candidate]
    run: Run | None


def open_sources(names: Sequence[str]) -> Sources:
    """Opens what `compare` takes; raw pixels are always among the others.

    The subject is the first bundle, or the first source if there is none. Raises UsageError without an encoder, and for
    one that is given twice; of other sources than the subject, whatever opening them raises.
    """
    check_distinct(names)
    encoders = [name for name in names if name != RAW_NAME]
    if not encoders:
        raise UsageError("give an encoder to report on: a bundle, a run, or a start such as imagenet")
    bundles = [name for name in encoders if (Path(name) / MANIFEST).exists()]
    subject = (bundles or encoders)[0]
    others = open_candidates([name for name in names if name not in bundles[:1]])
    if RAW not in [each.name for each in others]:
        others = [raw_candidate(), *others]
    run = next((Run(Path(name)) for name in encoders if Run(Path(name)).exists), None)
    bundle = _open_bundle(bundles[0]) if bundles else None
    taken = {RAW, TILES, *(bundle.candidates if bundle else ())}
    taken |= {each.name for each in bundle.compared.values()} if bundle else set()
    for name in set(names) & taken:
        raise UsageError(f"{name} is a name for something else in a report; write ./{name} for the path")
    return Sources(subject, _find_provenance(subject, bundle), bundle, others, run)


def _open_bundle(source: str) -> OpenedBundle:
    bundle, variants, broken = Bundle.open(source), {}, {}
    for variant, engine in find_pairs(bundle):
        name = name_variant(variant, engine)
        try:
            variants[name] = Encoder(source, variant, engine)
        except ByolEdgeError as error:
            broken[name] = str(error)
    reference = None
    if bundle.module is not None:
        broken[PYTORCH] = (
            f"it was made from a module of its maker's own ({bundle.module}), whose code the bundle does not hold"
        )
    else:
        try:
            reference = load_reference(bundle)
        except ByolEdgeError as error:
            broken[PYTORCH] = str(error)
    candidates = _list_candidates(bundle, variants, reference, broken)
    if not candidates:
        raise BundleError(f"{source}: nothing of it can be used: {'; '.join(broken.values())}")
    if not bundle.holds(bundle.default):
        broken[bundle.default.name] = "it is the default, but its files are not here"
    return OpenedBundle(source, bundle, candidates, variants, _choose_best(bundle, variants), reference, broken)


def _list_candidates(
    bundle: Bundle, variants: dict[str, Encoder], reference: Reference | None, broken: dict[str, str]
) -> dict[str, Candidate]:
    runs: dict[str, Embed] = {name: each.run for name, each in variants.items()}
    if reference is not None:
        runs[PYTORCH] = partial(embed_pixels, reference.network)
        runs[UNTRAINED] = partial(embed_pixels, load_untrained(bundle))

    def attempt(name: str, pixels: Pixels) -> Vectors:
        if name not in broken:
            try:
                return runs[name](pixels)
            except ByolEdgeError as error:
                broken[name] = str(error)
        return np.full((len(pixels), bundle.embedding_size), np.nan, np.float32)

    return {name: Candidate(name, partial(attempt, name), bundle.preprocessing) for name in runs}


def _choose_best(bundle: Bundle, variants: dict[str, Encoder]) -> dict[str, str]:
    """Of each precision, the default's first, what an Encoder takes for it, or the first that can be opened."""
    here = [bundle.default, *bundle.variants.values()]
    best = {}
    for precision in dict.fromkeys(each.precision for each in here if bundle.holds(each)):
        variant, engine = choose(bundle, bundle.best_known(precision), AUTO)[0]
        opened = [name for name, each in variants.items() if bundle.variants[each.variant].precision == precision]
        taken = name_variant(variant.name, engine.name)
        if opened:
            best[precision] = taken if taken in opened else opened[0]
    return best


def name_variant(variant: str, engine: str) -> str:
    return f"{variant} on {engine}"


def _find_provenance(subject: str, bundle: OpenedBundle | None) -> Provenance:
    found = bundle.bundle.provenance if bundle else Run(Path(subject)).find_provenance()
    return found or Provenance(init=subject)
