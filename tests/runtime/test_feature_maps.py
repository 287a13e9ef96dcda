import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from byol_edge.runtime import Bundle, BundleError, Encoder, EngineError, ImageError, UsageError, find_images, prepare
from byol_edge.runtime.feature_maps import FeatureMap, list_features, read_features
from byol_edge.runtime.preprocessing import prepare_all
from onnx import TensorProto, helper
from sabotage import change_golden, change_manifest, renew_hash, write_model

FEATURES = (FeatureMap("relu4", 256, 2, 2), FeatureMap("relu2", 64, 8, 8))
PAIRS = [
    *((f"{precision}.onnx", engine) for precision in ("fp32", "int8") for engine in ("onnxruntime", "openvino")),
    ("fp32.xml", "openvino"),
    ("int8.xml", "openvino"),
]


@pytest.fixture
def mapped(mapped_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, to be changed."""
    return Path(shutil.copytree(mapped_bundle, tmp_path / "mapped"))


def test_what_is_written_is_read():
    assert read_features(list_features(FEATURES)) == FEATURES
    assert list_features(()) == {}
    assert read_features({}) == ()


ENTRY = {"name": "a", "channels": 1, "height": 1, "width": 1}


@pytest.mark.parametrize(
    "listed",
    [
        "layer2",
        {"layer2": 1},
        [1],
        [{}],
        [{**ENTRY, "more": 1}],
        [{**ENTRY, "name": ""}],
        [{**ENTRY, "name": 3}],
        [{**ENTRY, "name": "a\nb"}],
        [{**ENTRY, "name": "a" * 300}],
        [{**ENTRY, "name": "embeddings"}],
        [{**ENTRY, "height": 0}],
        [{**ENTRY, "width": 1.5}],
        [{**ENTRY, "width": True}],
        [{**ENTRY, "channels": 10**9}],
        [ENTRY, ENTRY],
        [{**ENTRY, "name": str(number)} for number in range(100)],
    ],
)
def test_features_that_are_none_are_refused(listed: object, mapped: Path):
    with pytest.raises((TypeError, ValueError)):
        read_features({"features": listed})
    change_manifest(mapped, lambda manifest: manifest.update(features=listed))
    with pytest.raises(BundleError, match="not a manifest of this project"):
        Bundle.open(mapped)


@pytest.mark.parametrize(("variant", "engine"), PAIRS)
def test_every_engine_gives_the_maps_beside_the_same_embeddings(
    mapped_bundle: Path, finished_bundle: Path, photos: Path, variant: str, engine: str
):
    encoder, plain = (Encoder(each, variant, engine) for each in (mapped_bundle, finished_bundle))
    assert encoder.features == FEATURES
    pixels = prepare_all(find_images(photos)[:35], encoder.preprocessing)
    maps = encoder.run_maps(pixels)
    assert {name: each.shape for name, each in maps.items()} == {"relu4": (35, 256, 2, 2), "relu2": (35, 64, 8, 8)}
    assert {each.dtype for each in maps.values()} == {np.dtype(np.float32)}
    reference = Encoder(mapped_bundle, "fp32.onnx").run_maps(pixels)
    for name, each in maps.items():
        error = np.linalg.norm(each - reference[name]) / np.linalg.norm(reference[name])
        assert error < (0.1 if variant.startswith("int8") else 1e-5)
    apart = np.abs(encoder.run(pixels) - plain.run(pixels)).max()
    assert apart < (0.05 if variant.startswith("int8") else 1e-6)


def test_the_last_map_averaged_over_its_places_is_the_embedding(mapped_bundle: Path, photos: Path):
    encoder = Encoder(mapped_bundle, "fp32.onnx")
    one = find_images(photos)[3]
    alone, among = encoder.maps(one), encoder.maps([one, *find_images(photos)[:2]])
    for name in ("relu2", "relu4"):
        assert alone[name].shape == among[name].shape[1:]
        np.testing.assert_allclose(alone[name], among[name][0], atol=1e-5)
        np.testing.assert_array_equal(alone[name], encoder.maps(prepare(one, encoder.preprocessing))[name])
    means = alone["relu4"].mean((1, 2))
    np.testing.assert_allclose(means / np.linalg.norm(means), encoder.embed(one), atol=1e-6)


def test_lists_are_embedded_in_batches(mapped_bundle: Path, photos: Path, monkeypatch: pytest.MonkeyPatch):
    encoder = Encoder(mapped_bundle)
    sizes: list[int] = []
    run_maps = encoder.run_maps
    monkeypatch.setattr(encoder, "run_maps", lambda pixels: (sizes.append(len(pixels)), run_maps(pixels))[1])
    assert len(encoder.maps(find_images(photos)[:70])["relu2"]) == 70
    assert max(sizes) <= 32
    assert encoder.maps([])["relu4"].shape == (0, 256, 2, 2)


def test_a_file_alone_gives_them_too(mapped_bundle: Path, photos: Path):
    alone = Encoder(mapped_bundle / "int8.onnx")
    assert alone.features == FEATURES
    image, bundled = find_images(photos)[0], Encoder(mapped_bundle, "int8.onnx", alone.engine)
    np.testing.assert_array_equal(alone.maps(image)["relu2"], bundled.maps(image)["relu2"])


def test_a_bundle_without_maps_says_so(finished_bundle: Path, photos: Path):
    encoder = Encoder(finished_bundle)
    assert encoder.features == ()
    with pytest.raises(UsageError, match=r"gives no feature maps: export it again"):
        encoder.maps(find_images(photos)[:1])


def test_what_cannot_be_read_is_an_image_error(mapped_bundle: Path, photos: Path, tmp_path: Path):
    (tmp_path / "x.jpg").write_bytes(b"x")
    encoder = Encoder(mapped_bundle)
    for images in (tmp_path / "x.jpg", [find_images(photos)[0], tmp_path / "x.jpg"]):
        with pytest.raises(ImageError, match=r"x\.jpg"):
            encoder.maps(images)
    with pytest.raises(ImageError, match="this model takes uint8"):
        encoder.run_maps(np.zeros((1, 8, 8, 3), np.uint8))
    encoder.close()
    with pytest.raises(UsageError, match="closed"):
        encoder.maps(find_images(photos)[0])


def more_outputs(model: onnx.ModelProto) -> None:
    value = next(node.output[0] for node in model.graph.node if node.op_type == "Conv")
    model.graph.output.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, ["batch", 32, 16, 16]))


def fewer_outputs(model: onnx.ModelProto) -> None:
    del model.graph.output[2]


@pytest.mark.parametrize(("change", "count"), [(more_outputs, "3 feature maps"), (fewer_outputs, "1 feature map")])
def test_a_file_whose_outputs_are_not_those_that_it_names_is_refused(
    mapped: Path, change: Callable[[onnx.ModelProto], None], count: str
):
    model = onnx.load(mapped / "fp32.onnx")
    change(model)
    write_model(mapped, "fp32.onnx", model)
    for path in (mapped, mapped / "fp32.onnx"):
        with pytest.raises(BundleError, match=rf"fp32\.onnx: gives {count}, other than its metadata says"):
            Encoder(path, "fp32.onnx" if path == mapped else "auto")


def test_a_map_that_slipped_into_a_bundle_without_any_is_refused(bundle: Path):
    model = onnx.load(bundle / "fp32.onnx")
    more_outputs(model)
    write_model(bundle, "fp32.onnx", model)
    with pytest.raises(BundleError, match="gives 1 feature map, other than its metadata says"):
        Encoder(bundle, "fp32.onnx")


def test_one_output_less_in_an_ir_is_refused(mapped: Path):
    import re

    text = (mapped / "fp32.xml").read_text()
    layer = re.search(r'<layer id="(\d+)" name="relu2/sink_port_0".*?</layer>', text, re.S)
    assert layer is not None
    text = re.sub(rf'<edge [^>]*to-layer="{layer[1]}"[^>]*/>', "", text.replace(layer[0], ""))
    (mapped / "fp32.xml").write_text(text)
    renew_hash(mapped, "fp32.xml")
    with pytest.raises(BundleError, match="gives 1 feature map, other than"):
        Encoder(mapped, "fp32.xml")


def test_a_manifest_that_disagrees_with_its_files_is_refused(mapped: Path):
    def rename(manifest: dict[str, Any]) -> None:
        manifest["features"][0]["name"] = "relu9"
        for entry in manifest["variants"].values():
            entry["own_agreement"]["relu9"] = entry["own_agreement"].pop("relu4")

    change_manifest(mapped, rename)
    with pytest.raises(BundleError, match=r"says of itself features .*, where manifest\.json says"):
        Encoder(mapped)


def test_a_manifest_that_claims_maps_of_files_without_any_is_refused(bundle: Path):
    def claim(manifest: dict[str, Any]) -> None:
        manifest.update(list_features(FEATURES))
        for entry in manifest["variants"].values():
            entry["own_agreement"] = {each.name: 0.9 for each in FEATURES}

    change_manifest(bundle, claim)
    with pytest.raises(BundleError, match=r"says of itself features \[\], where manifest\.json says"):
        Encoder(bundle)


@pytest.mark.parametrize("agreement", [{}, {"relu2": 1}, {"relu2": 1, "relu4": "x"}, {"relu2": 1, "relu4": 7}, 3])
def test_a_manifest_without_its_agreements_is_refused(mapped: Path, agreement: object):
    change_manifest(mapped, lambda manifest: manifest["variants"]["int8.xml"].update(own_agreement=agreement))
    with pytest.raises(BundleError, match="not a manifest of this project"):
        Bundle.open(mapped)


def test_a_model_that_gives_other_maps_than_it_says_is_seen(mapped: Path, photos: Path):
    """The same number of maps in another order: the sizes differ."""
    model = onnx.load(mapped / "fp32.onnx")
    first, second = model.graph.output[1], model.graph.output[2]
    outputs = [model.graph.output[0], second, first]
    swapped = [onnx.ValueInfoProto.FromString(each.SerializeToString()) for each in outputs]
    del model.graph.output[:]
    model.graph.output.extend(swapped)
    write_model(mapped, "fp32.onnx", model)
    with pytest.raises(BundleError, match=r"gives feature maps .*; the manifest says relu4 \[256, 2, 2\]"):
        Encoder(mapped, "fp32.onnx").maps(find_images(photos)[0])


def test_numbers_that_are_not_finite_are_not_handed_on(
    mapped_bundle: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
):
    encoder = Encoder(mapped_bundle)
    broken = {each.name: np.full((1, *each.shape), np.nan, np.float32) for each in encoder.features}
    monkeypatch.setattr(encoder, "run_maps", lambda pixels: broken)
    with pytest.raises(EngineError, match="not finite"):
        encoder.maps(find_images(photos)[0])


@pytest.mark.parametrize(("variant", "engine"), PAIRS)
def test_a_self_test_holds_the_maps_to_pytorchs(mapped_bundle: Path, variant: str, engine: str):
    result = Encoder(mapped_bundle, variant, engine).self_test()
    assert result.passed, result.failures
    assert result.maps.keys() == {"relu2", "relu4"}
    assert min(result.maps.values()) > (0.98 if variant.startswith("int8") else 0.99999)


def test_a_self_test_sees_maps_that_are_wrong(mapped: Path):
    def turn(arrays: dict[str, Any]) -> None:
        arrays["map:relu2"] = arrays["map:relu2"][:, ::-1]

    change_golden(mapped, turn)
    result = Encoder(mapped).self_test()
    assert [line.split(":")[0] for line in result.failures] == ["relu2"]
    assert "lowest agreement with PyTorch" in result.failures[0]


OTHERS = [np.zeros(shape, np.float32) for shape in ((2, 64, 4, 8), (0, 64, 8, 8), (17, 64, 8, 8), ())]


@pytest.mark.parametrize("maps", [None, *OTHERS, np.zeros((2, 64, 8, 8))])
def test_golden_maps_of_another_shape_are_refused(mapped: Path, maps: Any):
    def change(arrays: dict[str, Any]) -> None:
        arrays.pop("map:relu2")
        if maps is not None:
            arrays["map:relu2"] = maps

    change_golden(mapped, change)
    with pytest.raises(BundleError, match=r"golden\.npz: "):
        Encoder(mapped).self_test()
