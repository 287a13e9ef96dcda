"""Three thousand broken images, each in the same process as the others: a vector or a typed error, and soon."""

from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime import Encoder, ImageError
from campaign.images import try_images
from mutations import make_corpus


def test_every_file_gives_pixels_or_a_typed_error_in_time_and_in_bounded_memory(tmp_path: Path):
    corpus = make_corpus()
    outcomes = list(try_images(tmp_path, range(len(corpus))))
    assert [each for each in outcomes if each.failure] == []
    assert [(each.trial, each.what) for each in outcomes] == [(n, name) for n, (name, _) in enumerate(corpus)]
    assert len(outcomes) >= 2000
    assert 0.3 <= sum(each.ended == "decoded" for each in outcomes) / len(outcomes) <= 0.9


@pytest.mark.filterwarnings("ignore")
def test_between_broken_files_every_vector_is_still_its_sources(finished_bundle: Path):
    encoder = Encoder(finished_bundle, "fp32.onnx")
    good = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)
    sources = []
    for image, (_, broken) in zip(good, make_corpus()[::20], strict=False):
        sources += [image, broken]
    chunks = list(encoder.stream(sources, batch_size=7))
    vectors = {row: vector for chunk in chunks for row, vector in zip(chunk.rows, chunk.vectors, strict=True)}
    failed = [source for chunk in chunks for source, _ in chunk.errors]
    assert all(isinstance(source, bytes) for source in failed)
    assert all(
        source is sources[row] for chunk in chunks for row, source in zip(chunk.rows, chunk.sources, strict=True)
    )
    assert len(vectors) + len(failed) == len(sources)
    expected = np.concatenate([encoder.run(image[None]) for image in good])
    found = np.stack([vectors[row] for row in range(0, len(sources), 2)])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_embed_names_what_is_wrong_with_a_broken_file(finished_bundle: Path):
    encoder = Encoder(finished_bundle, "fp32.onnx")
    with pytest.raises(ImageError, match="an image given as bytes: unreadable image"):
        encoder.embed([make_corpus()[0][1]])
