"""Images through everything that is compared: PyTorch, what has learned nothing, and each variant on each engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from torch import nn

from ..models.network import embed_pixels
from ..runtime.bundle import Bundle
from ..runtime.choosing import find_pairs
from ..runtime.encoder import Encoder
from ..runtime.errors import ImageError
from ..runtime.fidelity import Vectors
from ..runtime.images import find_images, folder_labels, read_labels
from ..runtime.preprocessing import Pixels, Preprocessing
from ..runtime.progress import Progress, report_progress
from ..runtime.reading import read_batches
from .raw import embed_raw
from .reference import Reference, load_reference, load_untrained

log = logging.getLogger(__name__)

Embed = Callable[[Pixels], Vectors]


@dataclass(frozen=True)
class Embedded:
    """Embeddings of the images under `data` that can be read, one row per image of `paths`.

    `classes`: one per image, None where it is not known; None where no class is. `of_floors`: what an accuracy has to
    beat, by name; empty without classes. `of_variants`: by each of `encoders`. `unreadable`: one message per image.
    """

    bundle: Bundle
    data: Path
    reference: Reference
    encoders: list[Encoder]
    paths: list[Path]
    classes: list[str | None] | None
    of_pytorch: Vectors
    of_floors: dict[str, Vectors]
    of_variants: list[Vectors]
    unreadable: list[str]


def embed_everywhere(
    bundle: Bundle,
    data: Path,
    variant: str | None = None,
    labels: Path | None = None,
    against: Path | None = None,
    module: nn.Module | None = None,
) -> Embedded:
    """Embeds the images under `data` with PyTorch, with each variant that is here (or the one named), and the floors.

    `against`, `module`: see load_reference. Logs a warning for each image that cannot be read. Raises BundleError,
    ImageError, EngineError, RunError and UsageError.
    """
    reference = load_reference(bundle, against, module)
    encoders = [Encoder(bundle.path, name, engine) for name, engine in find_pairs(bundle, variant)]
    paths = find_images(data)
    names = read_labels(labels, paths, data) if labels else folder_labels(paths, data)
    floors = _floors(bundle) if names else {}
    networks = [partial(embed_pixels, reference.network), *floors.values(), *(each.run for each in encoders)]
    vectors, rows, unreadable = embed_images(networks, paths, bundle.preprocessing, "validating")
    if not rows:
        raise ImageError(f"{data}: none of its {len(paths)} images can be read; the first: {unreadable[0]}")
    of_pytorch, *others = vectors
    return Embedded(
        bundle=bundle,
        data=data,
        reference=reference,
        encoders=encoders,
        paths=[paths[row] for row in rows],
        classes=None if names is None else [names[row] for row in rows],
        of_pytorch=of_pytorch,
        of_floors=dict(zip(floors, others, strict=False)),
        of_variants=others[len(floors) :],
        unreadable=unreadable,
    )


def embed_images(
    networks: Sequence[Embed], paths: Sequence[Path], preprocessing: Preprocessing, label: str
) -> tuple[list[Vectors], list[int], list[str]]:
    """The embeddings by each network of the images that can be read, the places of these in the list, and errors.

    No embeddings where no image can be read. Logs a warning for each that cannot, and progress under `label`.
    """
    parts: list[list[Vectors]] = [[] for _ in networks]
    rows: list[int] = []
    unreadable: list[str] = []
    for batch in read_batches(paths, preprocessing):
        for each in batch.unreadable:
            log.warning("left out: %s", each.error)
        rows += batch.rows
        unreadable += [str(each.error) for each in batch.unreadable]
        if batch.rows:
            for part, network in zip(parts, networks, strict=True):
                part.append(network(batch.pixels))
        report_progress(Progress(label, len(rows) + len(unreadable), len(paths)))
    return [np.concatenate(part) for part in parts if part], rows, unreadable


def _floors(bundle: Bundle) -> dict[str, Embed]:
    """Embeddings that nothing was learned for; of a user's own module, nobody here knows how its weights start."""
    if bundle.module is not None:
        return {"raw pixels": embed_raw}
    return {"untrained": partial(embed_pixels, load_untrained(bundle)), "raw pixels": embed_raw}
