import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from byol_edge.evaluate.candidates import open_candidates
from byol_edge.evaluate.reference import load_own_network, load_reference, load_untrained
from byol_edge.evaluate.validate import validate
from byol_edge.export import tuning
from byol_edge.export.bundling import Export, export_bundle
from byol_edge.export.config import ExportConfig
from byol_edge.export.fusing import load_pair
from byol_edge.export.source import load_source
from byol_edge.models.network import InferenceNetwork, embed_pixels
from byol_edge.models.starts import find_start
from byol_edge.models.weights import load_network
from byol_edge.runtime import Bundle, BundleError, ByolEdgeError, Encoder, RunError, UsageError, find_images
from byol_edge.runtime.golden import PYTORCH, read_golden
from byol_edge.runtime.openvino_backend import import_openvino
from byol_edge.runtime.preprocessing import Preprocessing, prepare_all
from byol_edge.runtime.run import Run
from byol_edge.train.pretrain import pretrain
from sabotage import change_manifest
from small_run import CONFIG
from two_runs import OTHER, write_run

pytestmark = pytest.mark.usefixtures("short_timing")

WEIGHT = 0.25


@pytest.fixture(scope="module")
def other_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "other")


@pytest.fixture(scope="module")
def exported(finished_run: Path, other_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Export]:
    out = tmp_path_factory.mktemp("fused") / "both"
    config = ExportConfig(int8=True, fp16=True, weight=WEIGHT)
    return out, export_bundle((finished_run, other_run), out, config)


@pytest.fixture(scope="module")
def finished_bundle(exported: tuple[Path, Export]) -> Path:
    """In place of the tests' own: `bundle` is a copy of it."""
    return exported[0]


@pytest.fixture(scope="module")
def shorter(finished_run: Path, other_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a layer behind both."""
    out = tmp_path_factory.mktemp("shorter") / "both"
    export_bundle((finished_run, other_run), out, ExportConfig(int8=True, dimensions=40))
    return out


@pytest.fixture(scope="module")
def some(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images without classes, which would take time."""
    folder = tmp_path_factory.mktemp("some")
    for number, file in enumerate(find_images(photos)[::5]):
        shutil.copy(file, folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def pixels(photos: Path) -> np.ndarray:
    return prepare_all(find_images(photos)[::5], OTHER)


def test_every_variant_is_both_encoders_weighted(
    exported: tuple[Path, Export], finished_run: Path, other_run: Path, pixels: np.ndarray
):
    path, export = exported
    first, second = (embed_pixels(load(run), pixels) for run in (finished_run, other_run))
    expected = WEIGHT * first @ first.T + (1 - WEIGHT) * second @ second.T
    assert {each.engine for each in export.variants} == {"onnxruntime", "openvino"}
    assert {each.name for each in export.variants} == {
        f"{p}.{f}" for p in ("fp32", "fp16", "int8") for f in ("onnx", "xml")
    }
    for each in export.variants:
        assert not each.failures
        vectors = Encoder(path, each.name, each.engine).run(pixels)
        assert vectors.shape == (24, 272)
        np.testing.assert_allclose(vectors @ vectors.T, expected, atol=0.02 if each.precision == "int8" else 1e-3)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)


def load(run: Path) -> InferenceNetwork:
    trained = Run(run).read_encoder()
    return load_network(trained.weights, trained.spec, str(run))


def test_the_bundle_alone_is_validated(finished_bundle: Path, some: Path):
    result = validate(finished_bundle, some)
    assert len(result.variants) == 9
    assert not result.failures
    assert all(Encoder(finished_bundle, each.name, each.engine).self_test().passed for each in result.variants)


def test_the_weight_is_the_manifests(bundle: Path):
    golden = read_golden(Bundle.open(bundle))
    whole = embed_pixels(load_own_network(Bundle.open(bundle)), golden.images)
    np.testing.assert_allclose(whole, golden.embeddings[PYTORCH], atol=1e-5)
    change_manifest(bundle, lambda manifest: manifest["network"]["fused"].update(weight=0.75))
    swapped = embed_pixels(load_own_network(Bundle.open(bundle)), golden.images)
    np.testing.assert_allclose(swapped[:, :256], whole[:, :256] * 3**0.5, atol=1e-5)


def test_the_manifest_names_both(finished_bundle: Path, finished_run: Path, other_run: Path):
    bundle = Bundle.open(finished_bundle)
    assert bundle.fusion is not None
    assert (bundle.fusion.weight, bundle.fusion.embedding_size) == (WEIGHT, 272)
    assert [each.embedding_size for each in (bundle.fusion.first, bundle.fusion.second)] == [256, 16]
    assert bundle.fusion.second.preprocessing == OTHER
    assert [name for name, _ in bundle.sources] == [str(finished_run), str(other_run)]
    assert [each.seed for _, each in bundle.sources] == [0, 1]
    assert bundle.provenance.init == f"{finished_run} and {other_run}, fused"


def test_the_same_export_gives_the_same_bytes(
    finished_bundle: Path, finished_run: Path, other_run: Path, tmp_path: Path
):
    export_bundle((finished_run, other_run), tmp_path / "b", ExportConfig(int8=True, fp16=True, weight=WEIGHT))
    names = json.loads((finished_bundle / "manifest.json").read_text())["files"]
    assert all((finished_bundle / each).read_bytes() == (tmp_path / "b" / each).read_bytes() for each in names)


@pytest.mark.parametrize("fixture", ["finished_bundle", "shorter"])
def test_both_backbones_are_quantized_and_nothing_else(fixture: str, request: pytest.FixtureRequest):
    path = request.getfixturevalue(fixture)
    model = onnx.load(path / "int8.onnx")
    makers = {output: node for node in model.graph.node for output in node.output}
    rounded = [makers[node.input[0]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert {each.op_type for each in rounded} <= {"Conv", "Relu", "Transpose", "Add", "ReduceMean"}
    weights = [
        tensor
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1
    ]
    assert sorted(len(each.dims) for each in weights) == [4] * 8

    operations = import_openvino().Core().read_model(path / "int8.xml").get_ordered_ops()
    inputs = [
        each.input_value(0).get_node().get_type_name() for each in operations if each.get_type_name() == "FakeQuantize"
    ]
    assert set(inputs) <= {"Add", "Relu", "Convolution", "ReduceMean", "Multiply", "Subtract", "Transpose"}
    constants = [each for each in operations if each.get_type_name() == "Constant"]
    assert sum(each.get_element_type().get_type_name() == "i8" for each in constants) == 8
    place = {each.get_friendly_name(): number for number, each in enumerate(operations)}
    last = max(place[each.get_friendly_name()] for each in operations if each.get_type_name() == "ReduceMean")
    assert "FakeQuantize" not in {each.get_type_name() for each in operations[last + 1 :]}


def test_shorter_vectors_are_directions_of_both(shorter: Path, pixels: np.ndarray, some: Path):
    short = Encoder(shorter, "fp32.onnx").run(pixels)
    assert short.shape == (24, 40)
    assert Bundle.open(shorter).provenance.dimensions == 40
    network = load_own_network(Bundle.open(shorter))
    np.testing.assert_allclose(short, embed_pixels(network, pixels), atol=1e-5)
    network.tail = torch.nn.Sequential()
    whole = embed_pixels(network, pixels)
    assert whole.shape == (24, 272)
    assert np.abs(short @ short.T - whole @ whole.T).mean() < 0.05
    assert not validate(shorter, some).failures


def test_feature_maps_are_named_after_the_encoder(
    finished_run: Path, other_run: Path, tmp_path: Path, pixels: np.ndarray
):
    config = ExportConfig(formats=("onnx",), features=("first.relu2", "second.relu2"))
    export_bundle((finished_run, other_run), tmp_path / "b", config)
    assert Encoder(tmp_path / "b").run_maps(pixels)["second.relu2"].shape == (24, 64, 8, 8)
    with pytest.raises(UsageError, match=r"'relu2' is no module .*; its stages end in first\.relu1 .*second\.relu1"):
        export_bundle((finished_run, other_run), tmp_path / "c", ExportConfig(features=("relu2",)))


def test_fine_tuning_changes_both_backbones_and_nothing_else(
    finished_run: Path, other_run: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tuning, "STEPS", 5)
    source = load_pair((finished_run, other_run), ExportConfig(dimensions=20))
    before, after = source.network.state_dict(), tuning.fine_tune(source.network, source.calibrate).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"backbone.first.conv1.weight", "backbone.second.conv1.weight"} <= changed
    assert not [name for name in changed if "tail" in name]


def test_the_target_networks_and_projectors_of_runs_are_fused(finished_run: Path, photos: Path, tmp_path: Path):
    pretrain(photos, tmp_path / "second", replace(CONFIG, epochs=1, seed=1))
    pair = finished_run, tmp_path / "second"
    pixels = load_pair(pair, ExportConfig()).judge
    online, target, projected = (
        embed_pixels(load_pair(pair, config).network, pixels)
        for config in (ExportConfig(), ExportConfig(network="target"), ExportConfig(with_projector=True))
    )
    assert online.shape == target.shape == (len(pixels), 512)
    assert np.abs(online - target).max() > 1e-3
    sizes = [load_source(each, ExportConfig(with_projector=True)).reference.shape[1] for each in pair]
    assert projected.shape == (len(pixels), sum(sizes))


def test_images_are_those_of_the_first_run_that_keeps_some(
    finished_run: Path, other_run: Path, photos: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    source = load_pair((finished_run, other_run), ExportConfig())
    assert len(source.calibrate) + len(source.judge) == 108
    assert f"the images kept in {finished_run} calibrate and judge" in caplog.text
    with pytest.raises(RunError, match="keeps no images"):
        load_pair((other_run, finished_run), ExportConfig())
    assert not load_pair((other_run, finished_run), ExportConfig(calibration=photos)).drawn


def test_weights_from_elsewhere_take_what_the_run_says(finished_run: Path, tmp_path: Path):
    wide = write_run(tmp_path / "wide", Preprocessing(48, fit="squash"))
    checkpoint = str(finished_run / "encoder.safetensors")
    with pytest.raises(
        UsageError, match=r"wide takes images of 48 px \(squash\) and .* of 32 px \(squash\); give image_size=48"
    ):
        load_pair((wide, checkpoint), ExportConfig())
    source = load_pair((wide, checkpoint), ExportConfig(image_size=48, calibration=finished_run.parent))
    assert (source.spec.preprocessing.image_size, source.spec.preprocessing.fit) == (48, "squash")


@pytest.mark.parametrize(
    ("preprocessing", "reason"),
    [
        (Preprocessing(48), r"32 px \(crop\) and .* of 48 px \(crop\); train one of them again at the other's size"),
        (Preprocessing(32, fit="pad"), r"\(crop\) and .*\(pad\); train one of them again with the other's fit=crop"),
    ],
)
def test_encoders_of_other_images_are_refused(
    finished_run: Path, tmp_path: Path, preprocessing: Preprocessing, reason: str
):
    with pytest.raises(UsageError, match=reason):
        load_pair((finished_run, write_run(tmp_path / "b", preprocessing)), ExportConfig())


def test_borders_of_different_colors_are_refused(tmp_path: Path):
    padded = [
        write_run(tmp_path / name, Preprocessing(32, mean, fit="pad"), seed)
        for seed, (name, mean) in enumerate([("a", (0.5, 0.5, 0.5)), ("b", (0.1, 0.5, 0.5))])
    ]
    with pytest.raises(UsageError, match=r"borders of different colors, their means; train both with fit=crop"):
        load_pair(padded, ExportConfig())


def test_what_cannot_be_fused_is_refused(finished_run: Path, finished_bundle: Path, other_run: Path, tmp_path: Path):
    out = tmp_path / "b"
    with pytest.raises(UsageError, match="are the same encoder; fuse two that differ"):
        export_bundle((finished_run, finished_run), out)
    with pytest.raises(UsageError, match="two encoders are fused, each a name or a path"):
        export_bundle((finished_run, other_run, finished_run), out)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="two encoders are fused, each a name or a path"):
        export_bundle((finished_run, torch.nn.Identity()), out)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"weight=0\.5: of two encoders"):
        export_bundle(finished_run, out, ExportConfig(weight=0.5))
    with pytest.raises(UsageError, match="image_size=32: a run has its own"):
        export_bundle((finished_run, other_run), out, ExportConfig(image_size=32))
    with pytest.raises(BundleError, match=r"holds two encoders, fused .* where one is needed"):
        export_bundle(finished_bundle, out)
    with pytest.raises(BundleError, match=r"holds two encoders, fused .* where one is needed"):
        find_start(str(finished_bundle))
    with pytest.raises(UsageError, match="its own weights are all it is compared with"):
        load_reference(Bundle.open(finished_bundle), finished_run)
    assert not out.exists()


@pytest.mark.parametrize("weight", [0.0, 1.0, -1.0, float("nan"), float("inf")])
def test_a_weight_is_between_0_and_1(weight: float):
    with pytest.raises(UsageError, match="weight"):
        ExportConfig(weight=weight)


@pytest.mark.parametrize(
    "change",
    [
        lambda fused: fused.pop("first"),
        lambda fused: fused.pop("weight"),
        lambda fused: fused.update(second=None),
        lambda fused: fused.update(second=["conv4"]),
        lambda fused: fused.update(second={"fused": dict(fused)}),
        lambda fused: fused.update(weight="0.5"),
        lambda fused: fused.update(weight=True),
        lambda fused: fused.update(weight=1.0),
        lambda fused: fused.update(weight=float("nan")),
        lambda fused: fused.update(weight=10**400),
        lambda fused: fused["first"].update(backbone=5),
        lambda fused: fused["first"].update(embedding_size=10**12),
        lambda fused: fused["second"]["preprocessing"].update(image_size=64),
        lambda fused: fused["second"]["preprocessing"].update(std=[0, 0, 0]),
        lambda fused: fused["first"]["preprocessing"].update(mean=[0, 0, 0]),
    ],
)
def test_a_manifest_out_of_any_range_is_refused(bundle: Path, change: Callable[[dict[str, Any]], object]):
    change_manifest(bundle, lambda manifest: change(manifest["network"]["fused"]))
    with pytest.raises(BundleError, match=r"manifest\.json: .*") as raised:
        Bundle.open(bundle)
    assert len(str(raised.value)) < 600


@pytest.mark.parametrize("fused", [None, 3, [], {}])
def test_a_fusion_of_another_kind_is_refused(bundle: Path, fused: object):
    change_manifest(bundle, lambda manifest: manifest["network"].update(fused=fused))
    with pytest.raises(BundleError, match=r"manifest\.json: .*"):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    "change",
    [
        lambda fused: fused["second"].update(backbone="vit_giant_patch14_224"),
        lambda fused: fused["first"].update(backbone="resnet18"),
        lambda fused: fused["first"].update(backbone="../../x" * 100),
    ],
)
def test_no_other_network_is_built_for_its_weights(bundle: Path, change: Callable[[dict[str, Any]], object]):
    change_manifest(bundle, lambda manifest: change(manifest["network"]["fused"]))
    with pytest.raises(ByolEdgeError) as raised:
        load_own_network(Bundle.open(bundle))
    assert len(str(raised.value)) < 600


@pytest.mark.parametrize("parts", [None, 3, [3], [[]], {}, [{"seed": 3}], [{"name": "a", "seed": "x"}]])
def test_where_it_says_to_come_from_is_not_believed_either(bundle: Path, parts: object):
    change_manifest(bundle, lambda manifest: manifest["provenance"].update(parts=parts))
    assert Bundle.open(bundle).sources == []


def test_it_is_compared_like_any_other(finished_bundle: Path, pixels: np.ndarray):
    names = [each.name for each in open_candidates([str(finished_bundle)])]
    assert sorted(name.split()[-1] for name in names) == ["fp16", "fp32", "int8"]
    assert embed_pixels(load_untrained(Bundle.open(finished_bundle)), pixels).shape == (24, 512)
