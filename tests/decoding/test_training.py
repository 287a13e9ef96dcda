"""Decoders: what they learn, that they are reproducible, and what is equal or hopeless."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from byol_edge.decoding.decoder_file import KeptDecoder, load_decoder, serialize_decoder
from byol_edge.decoding.likeness import squared_errors, to_decibels
from byol_edge.decoding.training import SEEN, VectorDecoder, choose_epochs, train_decoder
from byol_edge.runtime import VectorFile
from byol_edge.runtime.errors import ByolEdgeError, EngineError, VectorError
from byol_edge.runtime.fidelity import Vectors, unit_rows
from byol_edge.runtime.preprocessing import Pixels


def draw_colors(random: np.random.Generator, count: int, side: int = 8) -> tuple[Vectors, Pixels]:
    """Images of one color over another, and vectors that say which."""
    colors = random.integers(0, 256, (count, 2, 3))
    images = np.repeat(colors, side // 2, axis=1)[:, :, None].repeat(side, axis=2).astype(np.uint8)
    vectors = (colors.reshape(count, 6) / 255 - 0.5).astype(np.float32)
    return unit_rows(np.concatenate([vectors, np.ones((count, 1), np.float32)], 1)), images


def test_what_is_in_vectors_is_read_from_those_of_other_images(random: np.random.Generator):
    vectors, images = draw_colors(random, 220)
    decoder = train_decoder(vectors[:160], images[:160], epochs=5, seed=0, label="colors")
    decoded = decoder.decode(vectors[160:])
    constant = np.repeat(images[:160].mean(0).round().astype(np.uint8)[None], 60, axis=0)
    gain = to_decibels(squared_errors(images[160:], decoded)) - to_decibels(squared_errors(images[160:], constant))
    assert gain.mean() > 6


def test_nothing_is_read_from_vectors_that_are_all_alike(random: np.random.Generator):
    _, images = draw_colors(random, 60)
    vectors = np.repeat(np.eye(1, 7, dtype=np.float32), 60, axis=0)
    decoded = train_decoder(vectors, images, epochs=2, seed=0, label="nothing").decode(vectors)
    assert np.all(decoded == decoded[0])


def test_images_that_are_all_alike_come_back(random: np.random.Generator):
    vectors, images = draw_colors(random, 40)
    images = np.repeat(images[:1], 40, axis=0)
    decoded = train_decoder(vectors, images, epochs=1, seed=0, label="alike").decode(vectors)
    assert np.abs(decoded.astype(int) - images).max() <= 4


def test_the_seed_decides_and_nothing_else(random: np.random.Generator):
    vectors, images = draw_colors(random, 40)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (train_decoder(vectors, images, 1, seed, "colors") for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(first.decode(vectors), again.decode(vectors))
    assert not np.array_equal(first.decode(vectors), other.decode(vectors))
    assert keep(first) == keep(again) != keep(other)


def test_vectors_that_are_not_finite_are_no_decoder(random: np.random.Generator):
    vectors, images = draw_colors(random, 40)
    vectors[3] = np.nan
    with pytest.raises(EngineError, match="did not learn"):
        train_decoder(vectors, images, 1, 0, "colors")


def test_few_images_are_seen_more_often():
    assert [choose_epochs(images) for images in (18, SEEN // 5, SEEN, 10 * SEEN)] == [100, 5, 1, 1]


def keep(decoder: VectorDecoder) -> bytes:
    return serialize_decoder(KeptDecoder(decoder, "3f9a1c0d2b4e:int8.onnx", "onnxruntime", ("openvino",)))


@pytest.fixture(scope="module")
def colors() -> VectorDecoder:
    return train_decoder(*draw_colors(np.random.default_rng(0), 40), epochs=1, seed=0, label="colors")


def test_a_decoder_is_the_same_after_it_was_written(colors: VectorDecoder, tmp_path: Path, random: np.random.Generator):
    (tmp_path / "decoder.safetensors").write_bytes(keep(colors))
    kept = load_decoder(tmp_path)
    assert (kept.model, kept.engine, kept.agreeing) == ("3f9a1c0d2b4e:int8.onnx", "onnxruntime", ("openvino",))
    assert (kept.decoder.embedding_size, kept.decoder.side) == (7, 8)
    vectors, _ = draw_colors(random, 10)
    assert np.array_equal(kept.decoder.decode(vectors), colors.decode(vectors))
    assert kept.decoder.decode(vectors[:0]).shape == (0, 8, 8, 3)


def test_vectors_of_another_encoder_or_engine_are_refused(colors: VectorDecoder):
    kept = KeptDecoder(colors, "3f9a1c0d2b4e:int8.onnx", "onnxruntime", ("openvino",))
    content = VectorFile(np.eye(7, dtype=np.float32), ["x"] * 7, kept.model, kept.engine)
    kept.check("v.npz", content)
    kept.check("v.npz", replace(content, engine="openvino"))
    with pytest.raises(
        VectorError, match=r"^v.npz: its vectors are by 77ab:fp32, this decoder is of 3f9a1c0d2b4e:int8"
    ):
        kept.check("v.npz", replace(content, model="77ab:fp32"))
    with pytest.raises(VectorError, match=r"on openvino:gpu, this decoder is of onnxruntime, and no export has found"):
        kept.check("v.npz", replace(content, engine="openvino:gpu"))


def test_a_damaged_decoder_is_one_line(colors: VectorDecoder, tmp_path: Path):
    file = tmp_path / "decoder.safetensors"
    with pytest.raises(ByolEdgeError, match=r"holds no decoder\.safetensors"):
        load_decoder(tmp_path)
    content = keep(colors)
    for damaged in (
        b"",
        content[:100],
        content[:-4],
        content.replace(b'\\"side\\": 8', b'\\"side\\": 99'),
        content.replace(b'\\"side\\": 8', b'\\"side\\": -1'),
        content.replace(b'\\"kind\\": \\"decoding', b'\\"kind\\": \\"encoding'),
        content.replace(b'\\"format_version\\": 1', b'\\"format_version\\": 9'),
        content.replace(b'\\"embedding_size\\": 7', b'\\"embedding_size\\": 8'),
    ):
        assert damaged != content
        file.write_bytes(damaged)
        with pytest.raises(ByolEdgeError, match="damaged, or not a decoder") as caught:
            load_decoder(tmp_path)
        assert "\n" not in str(caught.value)


def test_a_decoder_of_other_numbers_is_told_or_read(colors: VectorDecoder, tmp_path: Path, random: np.random.Generator):
    """Somebody else wrote the file: of another precision, which is as good, or with numbers that are none."""
    vectors, _ = draw_colors(random, 10)
    file = tmp_path / "decoder.safetensors"
    double = replace(colors, center=colors.center.double(), spread=colors.spread.double(), mean=colors.mean.double())
    file.write_bytes(keep(double))
    assert np.array_equal(load_decoder(tmp_path).decoder.decode(vectors), colors.decode(vectors))
    file.write_bytes(keep(replace(colors, mean=torch.full_like(colors.mean, torch.nan))))
    with pytest.raises(ByolEdgeError, match=r"decoder.safetensors: damaged, .*numbers that are not finite"):
        load_decoder(tmp_path)
