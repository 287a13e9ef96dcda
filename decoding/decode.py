"""What can be read back out of an encoder's vectors: decoders trained on a folder of images, measured on others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..evaluate.intervals import Interval, bootstrap_interval
from ..evaluate.knn import bank_hits
from ..runtime.choosing import AUTO
from ..runtime.errors import UsageError
from ..runtime.files import finite, to_json, whole_folder, write_text
from ..runtime.preprocessing import Pixels
from ..runtime.reading import BATCH_SIZE
from ..runtime.text import to_text
from .decoder_file import KeptDecoder, serialize_decoder
from .images import Images, Subject, embed_folder, open_subject, resize
from .likeness import LEAST_ERROR, squared_errors, structural_similarity, to_decibels
from .results import CONSTANT, DECODED, DECODER, FIGURES, UNTRAINED, Decoding, Row
from .sheets import draw_decoded
from .training import choose_epochs, train_decoder


def decode(
    source: str,
    data: str | Path,
    out: str | Path,
    *,
    variant: str = AUTO,
    epochs: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Decoding:
    """Trains decoders of an encoder's vectors on the images under `data`, and measures them on a tenth, held out.

    `source`: what compare_encoders takes but "raw"; `variant`: of a bundle, as for Encoder. `epochs`: passes over the
    images; by default so many that a decoder sees 25,000. Writes `out`, a folder: the decoder, pictures, figures. Logs
    progress, and images that cannot be read. Raises OutputExistsError, UsageError, ImageError (for fewer than 20
    images), EngineError, and what opening the source raises.

        print(decode("bundles/photos", "photos/test", "decoded").conclusion)
    """
    if epochs is not None and epochs < 1:
        raise UsageError("{epochs}: has to be 1 or more", epochs=epochs)
    if not 0 <= seed < 2**63:
        raise UsageError("{seed}: has to be 0 or more, and less than 2**63", seed=seed)
    with whole_folder(Path(out), overwrite, DECODED) as folder:
        subject = open_subject(str(source), variant)
        images = embed_folder(subject, Path(data), seed)
        passes = epochs or choose_epochs(len(images.train))
        decoders = {
            name: train_decoder(its[images.train], images.pixels[images.train], passes, seed, f"decoding {name}")
            for name, its in images.vectors.items()
        }
        decoded = {name: each.decode(images.vectors[name][images.held]) for name, each in decoders.items()}
        mean = images.pixels[images.train].mean(0, dtype=np.float64).round().astype(np.uint8)
        decoded[CONSTANT] = np.repeat(mean[None], len(images.held), axis=0)
        rows, lead = _measure(subject, images, decoded)
        result = Decoding(
            source=to_text(str(source)),
            model=subject.encoder.id,
            engine=subject.encoder.engine,
            data=to_text(str(data)),
            side=images.pixels.shape[1],
            images=len(images.train),
            held_out=len(images.held),
            classes=len(images.classes),
            epochs=passes,
            seed=seed,
            rows=rows,
            knn=_judge(subject, images, images.pixels[images.held]),
            lead=lead,
            unreadable=images.unreadable,
        )
        kept = KeptDecoder(decoders[subject.name], result.model, result.engine, subject.agreeing)
        (folder / DECODER).write_bytes(serialize_decoder(kept))
        draw_decoded(result, images, decoders[subject.name], decoded, folder)
        write_text(folder / FIGURES, to_json(finite(result.to_json())))
    return result


def _measure(
    subject: Subject, images: Images, decoded: Mapping[str, Pixels]
) -> tuple[tuple[Row, ...], Interval | None]:
    """The table's rows, and the lead of the first over the untrained encoder's, if there is one."""
    true = images.pixels[images.held]
    errors = {name: squared_errors(true, each) for name, each in decoded.items()}
    decibels = {name: to_decibels(each) for name, each in errors.items()}
    constant = max(errors[CONSTANT].mean(), LEAST_ERROR)
    rows = tuple(
        Row(
            name=name,
            numbers=images.vectors[name].shape[1] if name in images.vectors else 0,
            psnr=bootstrap_interval(decibels[name]),
            gain=bootstrap_interval(decibels[name] - decibels[CONSTANT]),
            ssim=bootstrap_interval(structural_similarity(true, each)),
            knn=_judge(subject, images, each),
            explained=float(1 - errors[name].mean() / constant),
        )
        for name, each in decoded.items()
    )
    known = UNTRAINED in decibels
    return rows, bootstrap_interval(decibels[subject.name] - decibels[UNTRAINED]) if known else None


def _judge(subject: Subject, images: Images, pixels: Pixels) -> Interval | None:
    """5-NN accuracy of pictures of the held-out images, by the encoder's own vectors of the others; None without
    classes. One encoder judges all rows, so that these compare."""
    if images.labels is None:
        return None
    side = subject.encoder.preprocessing.image_size
    batches = [pixels[at : at + BATCH_SIZE] for at in range(0, len(pixels), BATCH_SIZE)]
    vectors = np.concatenate([subject.encoder.run(resize(batch, side)) for batch in batches])
    bank, labels = images.vectors[subject.name][images.train], images.labels
    return bootstrap_interval(bank_hits(bank, labels[images.train], vectors, labels[images.held]))
