import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from byol_edge.evaluate.scorer import Accuracy
from byol_edge.evaluate.validate import Limits, validate
from byol_edge.models.backbones import build_backbone
from byol_edge.models.weights import serialize_encoder
from byol_edge.runtime import BundleError, ImageError, UsageError, find_images
from byol_edge.runtime.interval import Interval
from byol_edge.runtime.run import Run
from PIL import Image
from sabotage import change_golden, change_manifest, replace_weights


def change_encoder(run: Path, backbone: str) -> None:
    """Gives a run other weights, of a backbone of this name."""
    trained = Run(run).read_encoder()
    network = build_backbone(backbone, 32)
    Run(run).save_encoder(serialize_encoder(network, replace(trained.spec, backbone=backbone), trained.provenance))


def test_a_good_bundle_passes_on_images_with_classes(finished_bundle: Path, photos: Path):
    result = validate(finished_bundle, photos)
    assert result.failures == []
    assert (result.images, result.classes) == (120, 3)
    assert [(each.name, each.engine) for each in result.variants] == [
        ("fp32.onnx", "onnxruntime"),
        ("fp32.onnx", "openvino"),
        ("fp32.xml", "openvino"),
        ("int8.onnx", "onnxruntime"),
        ("int8.onnx", "openvino"),
        ("int8.xml", "openvino"),
    ]
    assert result.accuracy is not None
    assert all(score.change is None for score in result.accuracy.scores.values())
    assert set(result.floors) == {"untrained", "raw pixels"}
    for each in result.variants:
        assert each.accuracy is not None
        knn, of_pytorch = each.accuracy.scores["knn"], result.accuracy.scores["knn"].value.mean
        assert knn.value.mean == pytest.approx(of_pytorch, abs=0.1)
        assert knn.value.lower <= knn.value.mean <= knn.value.upper
        assert "probe" in each.accuracy.scores
        assert each.accuracy.verification.auc == pytest.approx(result.accuracy.verification.auc, abs=0.02)
        change = knn.change
        assert change is not None
        assert change.mean == pytest.approx(knn.value.mean - of_pytorch)
        assert change.lower <= change.mean <= change.upper
        assert each.fidelity.overlap is not None
    assert result.accuracy.verification.false_matches == pytest.approx(0.01, abs=0.002)


def test_without_class_folders_there_is_no_accuracy(finished_bundle: Path, photos: Path):
    result = validate(finished_bundle, photos / "disc")
    assert (result.classes, result.accuracy, result.floors) == (0, None, {})
    assert result.variants[0].accuracy is None


def test_classes_may_come_from_a_file_that_knows_some_of_the_images(
    finished_bundle: Path, photos: Path, tmp_path: Path
):
    labels = tmp_path / "labels.csv"
    rows = [f"{shape}/{number:02}.png,{shape}" for shape in ("disc", "square") for number in range(10)]
    labels.write_text("image,label\n" + "\n".join(rows))
    result = validate(finished_bundle, photos, variant="int8", labels=labels)
    assert (result.images, result.classes) == (120, 2)
    assert result.accuracy is not None
    assert (result.accuracy.scores["knn"].value.mean * 20) % 1 == pytest.approx(0)


def test_too_few_images_a_class_have_no_linear_probe(finished_bundle: Path, photos: Path, tmp_path: Path):
    for shape in ("disc", "square"):
        (tmp_path / shape).mkdir()
        for number in range(4):
            shutil.copy(photos / shape / f"{number:02}.png", tmp_path / shape)
    result = validate(finished_bundle, tmp_path)
    assert result.failures == []
    assert result.accuracy is not None
    assert result.accuracy.scores.keys() == {"knn"}
    assert result.to_json()["accuracy"]["probe"] is None
    assert result.to_json()["variants"][0]["accuracy"]["probe_change"] is None


def test_gates_can_be_set(finished_bundle: Path, photos: Path):
    def failures(**limits: float) -> list[str]:
        return validate(finished_bundle, photos, variant="int8.onnx", limits=Limits(**limits)).failures

    assert failures(min_cosine=0.5, min_overlap=0.5, max_accuracy_drop=0.5) == []
    assert "needs ≥ 1" in failures(min_cosine=1.0)[0]
    assert "overlap of the 10 nearest" in failures(min_overlap=1.0)[0]


def test_a_stricter_gate_has_no_cause_and_shows_its_digits(finished_bundle: Path, photos: Path):
    (failure,) = validate(finished_bundle, photos, variant="fp32.xml", limits=Limits(min_cosine=1.0)).failures
    assert "lowest cosine to PyTorch 0.99999" in failure
    assert "cause" not in failure


def test_a_gate_that_nothing_was_measured_for_does_not_pass(finished_bundle: Path, photos: Path):
    with pytest.raises(UsageError, match=r"max_accuracy_drop=0\.1 needs classes: .* or labels=FILE\.csv"):
        validate(finished_bundle, photos / "disc", limits=Limits(max_accuracy_drop=0.1))
    with pytest.raises(UsageError, match=r"min_overlap=0\.5 needs 50 or more images, data=.*disc has 40"):
        validate(finished_bundle, photos / "disc", limits=Limits(min_overlap=0.5))


def test_a_bundle_of_no_training_is_compared_with_random_weights(bundle: Path, photos: Path):
    change_manifest(bundle, lambda manifest: manifest["provenance"]["training"].update(seed=None))
    assert "untrained" in validate(bundle, photos, variant="fp32.onnx").floors


def test_a_bundle_without_models_is_refused(bundle: Path, photos: Path):
    for file in (*bundle.glob("*.onnx"), *bundle.glob("*.xml")):
        file.unlink()
    with pytest.raises(BundleError, match="none of its variants"):
        validate(bundle, photos)


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.update(pytorch=arrays["pytorch"][:3]),
        lambda arrays: arrays.update(images=arrays["images"].astype(np.float32)),
        lambda arrays: arrays.update({"fp32.onnx": np.array(["a"])}),
        lambda arrays: arrays.update({name: array[:0] for name, array in arrays.items() if ":" not in name}),
        lambda arrays: arrays.update({"pixels:golden/alpha.png": arrays["pixels:golden/alpha.png"][:30]}),
        lambda arrays: arrays.pop("int8.xml"),
    ],
)
def test_golden_arrays_of_another_shape_are_refused(bundle: Path, photos: Path, change: Callable[[Any], None]):
    change_golden(bundle, change)
    with pytest.raises(BundleError, match=r"golden\.npz"):
        validate(bundle, photos)


def test_one_variant_can_be_asked_for(finished_bundle: Path, photos: Path):
    variants = validate(finished_bundle, photos, variant="int8").variants
    assert {each.name for each in variants} == {"int8.onnx", "int8.xml"}


def test_variants_that_are_not_here_are_left_out(bundle: Path, photos: Path):
    (bundle / "int8.bin").unlink()
    assert {each.name for each in validate(bundle, photos).variants} == {"fp32.onnx", "fp32.xml", "int8.onnx"}


def test_the_run_of_a_bundle_holds_the_same_weights(finished_bundle: Path, finished_run: Path, photos: Path):
    result = validate(finished_bundle, photos, variant="fp32.onnx", against=finished_run)
    assert (result.difference, result.failures) == ("", [])
    weights = finished_run / "encoder.safetensors"
    assert validate(finished_bundle, photos, variant="fp32.onnx", against=weights).difference == ""


def test_another_runs_weights_are_named_before_any_figure(finished_bundle: Path, run: Path, photos: Path):
    change_encoder(run, "conv4")
    result = validate(finished_bundle, photos, variant="fp32.onnx", against=run)
    assert "holds other weights than" in result.difference
    assert "tensors differ; the bundle was made after epoch 2 of a run of 2" in result.difference
    assert "lowest cosine to PyTorch" in result.failures[0]
    assert f"Likely cause: {run} holds other weights than the bundle" in result.failures[0]


def test_a_run_of_another_network_cannot_be_compared(finished_bundle: Path, run: Path, photos: Path):
    change_encoder(run, "resnet18")
    with pytest.raises(UsageError, match=r"against=.*run: a resnet18 \(standard stem\), where .* is of a conv4"):
        validate(finished_bundle, photos, against=run)


def test_unreadable_images_are_left_out_and_named(
    finished_bundle: Path, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    images = Path(shutil.copytree(photos, tmp_path / "images"))
    (images / "disc" / "broken.jpg").write_bytes(b"x")
    result = validate(finished_bundle, images)
    assert result.images == 120
    assert len(result.unreadable) == 1
    assert "broken.jpg" in result.unreadable[0]
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        f"left out: {result.unreadable[0]}"
    ]
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"x")
    with pytest.raises(ImageError, match="none of its 1 images"):
        validate(finished_bundle, tmp_path / "bad")


def test_images_of_all_sizes_and_modes_pass(finished_bundle: Path, tmp_path: Path, random: np.random.Generator):
    for number, (mode, size) in enumerate([("RGB", (99, 31)), ("L", (32, 32)), ("RGBA", (500, 400)), ("P", (8, 90))]):
        pixels = random.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(tmp_path / f"{number}.png")
    assert validate(finished_bundle, tmp_path).failures == []


def test_weights_that_a_model_was_not_made_from_are_refused(bundle: Path, photos: Path):
    replace_weights(bundle, build_backbone("conv4", 32))
    with pytest.raises(BundleError, match=r"fp32\.onnx was made from other weights than encoder\.safetensors"):
        validate(bundle, photos)


def test_changed_weights_are_refused(bundle: Path, photos: Path):
    with (bundle / "encoder.safetensors").open("r+b") as file:
        file.seek(2000)
        file.write(b"\x01\x02")
    with pytest.raises(BundleError, match=r"encoder\.safetensors: changed"):
        validate(bundle, photos)


def test_a_gate_that_nothing_was_measured_for_is_told(finished_bundle: Path, photos: Path, tmp_path: Path):
    for path in find_images(photos)[:20]:
        shutil.copy(path, tmp_path)
    result = validate(finished_bundle, tmp_path, variant="int8.onnx")
    assert result.variants[0].fidelity.overlap is None
    assert result.variants[0].unmeasured == ("overlap of the 10 nearest (it takes 50 images, not 20)",)
    assert result.to_json()["variants"][0]["unmeasured"] == result.variants[0].unmeasured
    assert validate(finished_bundle, photos, variant="int8.onnx").variants[0].unmeasured == ()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"untrained": -0.2, "raw pixels": -0.1}, "better here than untrained and raw pixels."),
        (
            {"untrained": -0.2, "raw pixels": 0.0},
            "not clearly better here than raw pixels, so it is not worth shipping",
        ),
    ],
)
def test_what_an_encoder_is_worth_is_a_sentence(
    finished_bundle: Path, photos: Path, changes: dict[str, float], told: str
):
    result = validate(finished_bundle, photos, variant="fp32.onnx")
    assert result.accuracy is not None

    def floor(change: float) -> Accuracy:
        interval = Interval(change, change - 0.05, change + 0.05)
        knn = replace(result.accuracy.scores["knn"], change=interval)  # type: ignore[union-attr]
        return replace(result.accuracy, scores={"knn": knn})  # type: ignore[type-var]

    floors = {name: floor(change) for name, change in changes.items()}
    judged = replace(result, floors=floors)
    assert told in judged.worth
    assert judged.conclusion == f"All 2 variants reproduce PyTorch on 120 images; {judged.worth}"
    unknown = replace(result, accuracy=None, floors={}, variants=result.variants[:1])
    assert unknown.worth == ""
    assert unknown.conclusion == "The variant reproduces PyTorch on 120 images."
    one, other = result.variants
    failed = replace(judged, variants=(one, replace(other, failures=("missed",))))
    assert failed.conclusion == "1 of 2 variants does not reproduce PyTorch on 120 images: do not ship it."
    assert "reads images otherwise: golden" in replace(judged, around=("golden files differ",)).conclusion
