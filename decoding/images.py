"""What is decoded: an encoder opened by its name, and a folder of images with their vectors, a tenth held out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..evaluate.accuracy import draw_rows
from ..evaluate.embedding import Embed, embed_images
from ..evaluate.knn import Labels
from ..evaluate.reference import load_untrained
from ..models.eager import EagerEncoder
from ..models.encoders import ImageEncoder, open_encoder
from ..models.network import InferenceNetwork, embed_pixels
from ..models.tail import find_components
from ..models.weights import untrained_encoder
from ..runtime.bundle import MANIFEST, Bundle
from ..runtime.choosing import AUTO
from ..runtime.encoder import Encoder, find_problem
from ..runtime.errors import EngineError, ImageError, UsageError
from ..runtime.fidelity import Vectors, unit_rows
from ..runtime.images import find_images, folder_labels
from ..runtime.model_file import is_model_file
from ..runtime.preprocessing import Pixels
from ..runtime.vectors import SINKS
from .results import DECODER, UNTRAINED
from .training import MOST_SIDE

log = logging.getLogger(__name__)

# Fewer images teach a decoder nothing, and more than the most are drawn from.
LEAST, MOST = 20, 20_000
HELD_OUT, MOST_HELD_OUT = 0.1, 1000
# The numbers that a vector is shortened to, and the images whose principal directions these are.
SHORT, MOST_FOR_COMPONENTS = 32, 2000
TILES = "tiles"
# The row of weights that PyTorch runs as they are.
PLAIN = "FP32"


@dataclass(frozen=True)
class Subject:
    """The encoder whose vectors are decoded, its row's `name`, and all that embeds by the names of their rows: it,
    a bundle's other precisions, the same network untrained."""

    encoder: ImageEncoder
    name: str
    embed: dict[str, Embed]
    agreeing: tuple[str, ...]


@dataclass(frozen=True)
class Images:
    """Images as the encoder sees them, in small, uint8 `[N, side, side, 3]`, and their vectors `[N, D]` by row's name.

    `train` and `held`: the places of those that decoders see, and of the others. `labels`: their classes, numbered, in
    `classes`; None where the folder has none.
    """

    paths: list[Path]
    pixels: Pixels
    vectors: dict[str, Vectors]
    train: NDArray[np.intp]
    held: NDArray[np.intp]
    labels: Labels | None
    classes: list[str]
    unreadable: tuple[str, ...]


def open_subject(source: str, variant: str) -> Subject:
    """Opens what is to be decoded. Raises UsageError for a file of vectors, and what open_encoder raises."""
    path = Path(source)
    if path.suffix in SINKS:
        raise UsageError(
            f"{source} is a file of vectors: give the encoder that made it, then what that writes with {{vectors}}",
            vectors=source,
        )
    if (path / DECODER).exists():
        raise UsageError(
            f"{source} is what this wrote of an encoder: it decodes {{vectors}}, and nothing else", vectors="FILE"
        )
    if (path / MANIFEST).exists():
        return _open_bundle(path, variant)
    if is_model_file(path):
        model = Encoder(path, variant)
        return Subject(model, model.variant, {model.variant: model.run}, ())
    if variant != AUTO:
        raise UsageError(f"{{variant}}: {source} is no bundle; leave it out", variant=variant)
    encoder = open_encoder(source)
    assert isinstance(encoder, EagerEncoder)
    untrained = InferenceNetwork(untrained_encoder(encoder.spec, seed=0), encoder.preprocessing)
    return Subject(encoder, PLAIN, {PLAIN: encoder.run, UNTRAINED: partial(embed_pixels, untrained)}, ())


def _open_bundle(path: Path, variant: str) -> Subject:
    bundle, encoder = Bundle.open(path), Encoder(path, variant)
    own = bundle.variants[encoder.variant]
    here = dict.fromkeys(each.precision for each in bundle.variants.values() if bundle.holds(each))
    others = [Encoder(path, bundle.best_known(each)) for each in here if each != own.precision]
    embed: dict[str, Embed] = {each.variant: each.run for each in (encoder, *others)}
    if bundle.module is None:
        embed[UNTRAINED] = partial(embed_pixels, load_untrained(bundle))
    agreeing = tuple(each.engine for each in own.engines if encoder.agrees_with(each.engine))
    return Subject(encoder, encoder.variant, embed, agreeing)


def embed_folder(subject: Subject, data: Path, seed: int) -> Images:
    """Embeds the images under `data`, 20,000 drawn of more, once for all rows, and sets a tenth of them apart.

    Raises ImageError where fewer than 20 can be read.
    """
    found = find_images(data)
    rng = np.random.default_rng(seed)
    if len(found) > MOST:
        found = [found[place] for place in np.sort(rng.choice(len(found), MOST, replace=False))]
        log.info(f"{data}: {MOST} of its images are drawn")
    side = min(subject.encoder.preprocessing.image_size, MOST_SIDE)
    shrink = cast(Embed, partial(resize, side=side))  # not vectors, but they come of the same pixels
    networks = {**subject.embed, TILES: shrink}
    embedded, rows, unreadable = embed_images(
        list(networks.values()), found, subject.encoder.preprocessing, "embedding"
    )
    if len(rows) < LEAST:
        first = f"; the first that cannot be read: {unreadable[0]}" if unreadable else ""
        raise ImageError(f"{data}: a decoder takes {LEAST} images or more, here {len(rows)} can be read{first}")
    vectors = dict(zip(networks, embedded, strict=True))
    pixels = cast(Pixels, vectors.pop(TILES))
    for name in list(vectors):
        if problem := find_problem(vectors[name]):
            if name == subject.name:
                raise EngineError(f"{name} gives {problem}, which cannot be decoded")
            log.warning(f"left out: {name} gives {problem}")
            del vectors[name]
    order = rng.permutation(len(rows))
    count = min(MOST_HELD_OUT, max(1, round(HELD_OUT * len(rows))))
    train, held = np.sort(order[count:]), order[:count]
    _add_short(vectors, subject.name, train)
    paths = [found[row] for row in rows]
    names = folder_labels(paths, data)
    classes, labels = np.unique(names, return_inverse=True) if names else ([], None)
    return Images(paths, pixels, vectors, train, held, labels, [str(each) for each in classes], tuple(unreadable))


def _add_short(vectors: dict[str, Vectors], name: str, train: NDArray[np.intp]) -> None:
    """The subject's vectors, shortened as by `byol-edge export --dim`: a row more, before the untrained encoder's."""
    size = vectors[name].shape[1]
    drawn = train[draw_rows(len(train), MOST_FOR_COMPONENTS)]
    if size > SHORT and len(drawn) >= SHORT:
        components = find_components(vectors[name][drawn], SHORT).numpy()
        untrained = vectors.pop(UNTRAINED, None)
        vectors[f"{name}, shortened"] = unit_rows(vectors[name] @ components.T)
        if untrained is not None:
            vectors[UNTRAINED] = untrained


def resize(pixels: Pixels, side: int) -> Pixels:
    """Images uint8 `[N, H, H, 3]` at another side, bicubic and antialiased; as they are where it is theirs."""
    if pixels.shape[1] == side:
        return pixels
    return np.stack(
        [np.asarray(Image.fromarray(each).resize((side, side), Image.Resampling.BICUBIC)) for each in pixels]
    )
