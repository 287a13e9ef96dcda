"""What `validate` must catch: each way in which the model on a device is not the one that was trained.

docs/validation.md shows the same list with the figures and messages.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from byol_edge.evaluate.reference import load_own_network
from byol_edge.export.bundling import export_bundle
from byol_edge.export.config import ExportConfig
from byol_edge.models.backbones import build_backbone
from byol_edge.models.network import InferenceNetwork
from byol_edge.models.weights import serialize_encoder
from byol_edge.runtime import Bundle
from byol_edge.runtime import preprocessing as preprocessing_module
from byol_edge.runtime.onnxruntime_backend import OnnxRuntimeBackend
from byol_edge.runtime.preprocessing import prepare, to_rgb
from byol_edge.runtime.run import Run
from commands import call, fails
from numpy.typing import NDArray
from PIL import Image
from sabotage import change_golden, change_manifest, double_a_scale, renew_hash, replace_weights, write_network
from shapes import draw_shape
from torch import Tensor, nn


def caught(bundle: Path, photos: Path, *options: object) -> str:
    """The line that `validate` ends with; it must exit with 1."""
    return fails(1, "validate", bundle, "--data", photos / "disc", *options)


class Changed(nn.Module):
    """A network with something done to what goes in or comes out of its backbone."""

    def __init__(
        self, network: InferenceNetwork, before: nn.Module | None = None, after: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.backbone = network.backbone
        self.before, self.after = before or nn.Identity(), after or nn.Identity()
        self.image_size = network.image_size
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        embeddings = self.after(self.backbone(self.network.inputs(self.before(images))))
        return embeddings / embeddings.square().sum(1, keepdim=True).sqrt().clamp(min=1e-12)


class Swapped(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flip(3)


class Mirrored(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flip(2)


class NotNormalized(Changed):
    def forward(self, images: Tensor) -> Tensor:
        return self.backbone(self.network.inputs(images))


class BatchStatistics(nn.Module):
    """Batch norm as it is in training."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, features: Tensor) -> Tensor:
        mean = features.mean((0, 2, 3), keepdim=True)
        variance = (features - mean).square().mean((0, 2, 3), keepdim=True)
        weight, bias = (each.view(1, -1, 1, 1) for each in (self.norm.weight, self.norm.bias))
        return (features - mean) / (variance + self.norm.eps).sqrt() * weight + bias


def network_of(bundle: Path) -> InferenceNetwork:
    return load_own_network(Bundle.open(bundle))


def test_mean_and_deviation_swapped(bundle: Path, photos: Path):
    network = network_of(bundle)
    right = Bundle.open(bundle).preprocessing
    write_network(bundle, InferenceNetwork(network.backbone, replace(right, mean=right.std, std=right.mean)))
    assert "Likely cause: mean and standard deviation are swapped" in caught(bundle, photos)


def test_red_and_blue_swapped_in_the_graph(bundle: Path, photos: Path):
    write_network(bundle, Changed(network_of(bundle), before=Swapped()))
    assert "Likely cause: red and blue are swapped" in caught(bundle, photos)


def test_images_mirrored_in_the_graph(bundle: Path, photos: Path):
    write_network(bundle, Changed(network_of(bundle), before=Mirrored()))
    assert "Likely cause: images are mirrored" in caught(bundle, photos)


def test_another_mean_and_deviation(bundle: Path, photos: Path):
    half = replace(Bundle.open(bundle).preprocessing, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    write_network(bundle, InferenceNetwork(network_of(bundle).backbone, half))
    assert "Likely cause: mean and standard deviation are 0.5, not the bundle's" in caught(bundle, photos)


def test_red_and_blue_swapped_by_the_decoder(finished_bundle: Path, photos: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        preprocessing_module, "to_rgb", lambda image: Image.fromarray(np.asarray(to_rgb(image))[:, :, ::-1].copy())
    )
    assert "red and blue are swapped here" in caught(finished_bundle, photos)


def test_resized_without_antialiasing(finished_bundle: Path, photos: Path, monkeypatch: pytest.MonkeyPatch):
    def resize(
        image: Image.Image, size: tuple[int, int], resample: int, box: tuple[float, float, float, float]
    ) -> Image.Image:
        left, top, right, bottom = box
        matrix = ((right - left) / size[0], 0, left, 0, (bottom - top) / size[1], top)
        return image.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)

    monkeypatch.setattr(Image.Image, "resize", resize)
    assert "resized otherwise here: another filter, or no antialiasing" in caught(finished_bundle, photos)


def test_orientation_ignored(finished_bundle: Path, photos: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image.Image, "getexif", lambda image: Image.Exif())
    message = caught(finished_bundle, photos)
    assert "golden/rotated.jpg decodes to other pixels" in message
    assert "EXIF orientation is ignored here" in message


def test_batch_norm_in_training_mode(bundle: Path, photos: Path):
    network = network_of(bundle)
    for name, module in list(network.backbone.named_children()):
        if isinstance(module, nn.BatchNorm2d):
            setattr(network.backbone, name, BatchStatistics(module))
    write_network(bundle, network)
    assert "batch: batch norm is in training mode" in caught(bundle, photos)


def test_weights_of_another_run_in_the_model(bundle: Path, photos: Path):
    torch.manual_seed(5)
    network = InferenceNetwork(build_backbone("conv4", 32), Bundle.open(bundle).preprocessing)
    write_network(bundle, network)
    message = caught(bundle, photos)
    assert "lowest cosine to PyTorch" in message
    assert "wrong from the first layer on: other weights than encoder.safetensors" in message


def test_one_layer_of_other_weights_in_the_model(bundle: Path, photos: Path):
    network = network_of(bundle)
    with torch.no_grad():
        network.backbone.get_parameter("bn3.weight").mul_(1.01)
    write_network(bundle, network)
    assert "Likely cause: right up to layer bn2, wrong after bn3" in caught(bundle, photos)


def test_weights_a_little_further_trained_in_the_model(bundle: Path, photos: Path):
    network = network_of(bundle)
    with torch.no_grad():
        for parameter in network.backbone.parameters():
            parameter *= 1 + 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    write_network(bundle, network)
    assert "other weights than encoder.safetensors" in caught(bundle, photos)


def test_other_weights_beside_the_model(bundle: Path, photos: Path):
    replace_weights(bundle, build_backbone("conv4", 32))
    assert "fp32.onnx was made from other weights than encoder.safetensors" in caught(bundle, photos)


def test_the_targets_weights(finished_run: Path, photos: Path, tmp_path: Path):
    export_bundle(finished_run, tmp_path / "bundle", ExportConfig(network="target"))
    assert call("validate", tmp_path / "bundle", "--data", photos).exit_code == 0
    result = call("validate", tmp_path / "bundle", "--data", photos, "--against", finished_run)
    assert result.exit_code == 1
    assert "the bundle holds this run's target network, not its online network" in result.stdout


def test_another_epochs_weights(finished_bundle: Path, run: Path, photos: Path):
    network = network_of(finished_bundle)
    with torch.no_grad():
        network.backbone.get_parameter("conv4.weight").mul_(1.001)
    trained = Run(run).read_encoder()
    Run(run).save_encoder(serialize_encoder(network.backbone, trained.spec, trained.provenance))
    result = call("validate", finished_bundle, "--data", photos, "--against", run)
    assert result.exit_code == 1
    assert "1 of 24 tensors differ; the bundle was made after epoch 2 of a run of 2" in result.stdout


def test_the_projector_left_on(bundle: Path, photos: Path):
    network = network_of(bundle)
    write_network(bundle, Changed(network, after=nn.Linear(256, 256)))
    assert "each layer of the backbone is right, what follows is not: a layer too many" in caught(bundle, photos)
    write_network(bundle, Changed(network, after=nn.Linear(256, 128)))
    assert "gives vectors [32, 128]; the manifest says 256 (a layer too many" in caught(bundle, photos)


def test_a_doubled_int8_scale(bundle: Path, photos: Path):
    layer = double_a_scale(bundle)
    message = caught(bundle, photos, "--variant", "int8.onnx")
    assert "lowest cosine to its own embeddings at export" in message
    assert re.search(f"Likely cause: signal to noise falls .* at layer {layer}, where values are 1[.][89]", message)


def test_embeddings_not_normalized(bundle: Path, photos: Path):
    write_network(bundle, NotNormalized(network_of(bundle)))
    message = caught(bundle, photos)
    assert "deviation from unit length" in message
    assert "Likely cause: directions are right, lengths are not" in message


BackendRun = Callable[[OnnxRuntimeBackend, NDArray[np.uint8]], NDArray[np.float32]]


def engine_that(change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> BackendRun:
    true_run = OnnxRuntimeBackend.run
    return lambda self, images: change(true_run(self, images))


def test_rows_of_a_batch_permuted(finished_bundle: Path, photos: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(OnnxRuntimeBackend, "run", engine_that(lambda vectors: np.roll(vectors, 1, axis=0)))
    message = caught(finished_bundle, photos)
    assert "Likely cause: the right embeddings in another order: row 0 holds that of image 31" in message
    assert "fp32.xml" not in message


def test_one_row_not_a_number(finished_bundle: Path, photos: Path, monkeypatch: pytest.MonkeyPatch):
    def spoil(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        vectors[3 % len(vectors)] = np.nan
        return vectors

    monkeypatch.setattr(OnnxRuntimeBackend, "run", engine_that(spoil))
    assert "Likely cause: row 3 of a batch of 32 is not finite" in caught(finished_bundle, photos)


def test_a_row_not_a_number_after_the_first_batch(finished_bundle: Path, photos: Path, monkeypatch: pytest.MonkeyPatch):
    true_run = OnnxRuntimeBackend.run
    images = photos / "stripes"
    spoilt = prepare(sorted(images.iterdir())[36], Bundle.open(finished_bundle).preprocessing)

    def run(self: OnnxRuntimeBackend, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        vectors = true_run(self, pixels)
        vectors[(pixels == spoilt).all((1, 2, 3))] = np.nan
        return vectors

    monkeypatch.setattr(OnnxRuntimeBackend, "run", run)
    message = fails(1, "validate", finished_bundle, "--data", images)
    assert "is not finite: an overflow, or a fault of the engine's" in message


def test_an_engine_in_bf16(finished_bundle: Path, photos: Path, monkeypatch: pytest.MonkeyPatch):
    network = network_of(finished_bundle)

    def run(self: OnnxRuntimeBackend, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            return network(torch.from_numpy(images)).float().numpy()

    monkeypatch.setattr(OnnxRuntimeBackend, "run", run)
    message = caught(finished_bundle, photos, "--variant", "fp32.onnx")
    assert "Likely cause: as far off as bf16 arithmetic is" in message


def test_a_golden_file_changed(bundle: Path, photos: Path):
    shutil.copy(bundle / "golden" / "alpha.png", bundle / "golden" / "palette.png")
    assert "golden/palette.png: changed since export" in caught(bundle, photos)
    renew_hash(bundle, "golden/palette.png")
    message = caught(bundle, photos)
    assert "golden/palette.png decodes to other pixels" in message
    assert "decoded otherwise here, or they were changed" in message
    shutil.copy(bundle / "golden" / "alpha.png", bundle / "golden" / "rotated.jpg")
    renew_hash(bundle, "golden/rotated.jpg")
    message = caught(bundle, photos)
    assert "EXIF" not in message
    assert "resized" not in message


def test_golden_embeddings_changed(bundle: Path, photos: Path):
    change_golden(bundle, lambda arrays: arrays.update(pytorch=arrays["pytorch"][::-1]))
    assert "encoder.safetensors is not what the bundle was exported from" in caught(bundle, photos)


def test_a_manifest_that_claims_another_variant(bundle: Path, photos: Path):
    change_manifest(bundle, lambda manifest: manifest["variants"]["int8.onnx"].update(files=["fp32.onnx"]))
    message = caught(bundle, photos)
    assert "the file of int8.onnx says of itself variant fp32.onnx, where manifest.json says int8.onnx" in message


def test_a_manifest_that_claims_another_precision(bundle: Path, photos: Path):
    change_manifest(bundle, lambda manifest: manifest["variants"]["int8.onnx"].update(precision="fp32"))
    assert "says of itself precision int8, where manifest.json says fp32" in caught(bundle, photos)


def test_what_moves_no_vector_is_no_failure(bundle: Path, photos: Path):
    (bundle / "measured.json").write_text("{}")
    (bundle / "notes.txt").write_text("kept by a user")
    write_network(bundle, network_of(bundle))  # the same model, written once more
    change_manifest(bundle, lambda manifest: manifest["provenance"].update(remark="copied by hand"))
    assert call("validate", bundle, "--data", photos).exit_code == 0


def save_modes(folder: Path, rng: np.random.Generator) -> None:
    for mode, suffix in (("L", "png"), ("RGBA", "png"), ("P", "gif"), ("CMYK", "jpg"), ("LA", "png"), ("1", "bmp")):
        draw_shape("disc", rng, 90, 70).convert(mode).save(folder / f"{mode}.{suffix}")


def save_turned(folder: Path, rng: np.random.Generator) -> None:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        draw_shape("square", rng, 90, 70).save(folder / f"{orientation}.jpg", exif=exif)


def save_sizes(folder: Path, rng: np.random.Generator) -> None:
    for width, height in ((1, 1), (3, 400), (400, 3), (32, 32), (31, 33), (900, 700)):
        draw_shape("stripes", rng, width, height).save(folder / f"{width}x{height}.png")


def save_many(folder: Path, rng: np.random.Generator) -> None:
    for number in range(70):
        (folder / str(number % 2)).mkdir(exist_ok=True)
        draw_shape(("disc", "square")[number % 2], rng).save(folder / str(number % 2) / f"{number}.webp")


def save_noise(folder: Path, rng: np.random.Generator) -> None:
    for number in range(33):  # one more than a batch
        Image.fromarray(rng.integers(0, 256, (50, 60, 3), dtype=np.uint8)).save(folder / f"{number}.tiff")


@pytest.mark.parametrize("save", [save_modes, save_turned, save_sizes, save_many, save_noise])
def test_a_good_bundle_passes_on_any_images(
    finished_bundle: Path,
    tmp_path: Path,
    random: np.random.Generator,
    save: Callable[[Path, np.random.Generator], None],
):
    save(tmp_path, random)
    result = call("validate", finished_bundle, "--data", tmp_path)
    assert result.exit_code == 0, result.output
    assert all(engine in result.stdout for engine in ("onnxruntime", "openvino"))
