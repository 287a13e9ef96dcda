from pathlib import Path
from typing import Any

import pytest
from byol_edge.runtime import Bundle, BundleError, Encoder, UsageError
from sabotage import change_manifest

ENTRY = {"files": ["fp32.onnx"], "precision": "fp32", "passes": True, "own_cosine": 1, "engines": {}}


def test_a_bundle_says_what_it_holds(finished_bundle: Path):
    bundle = Bundle.open(finished_bundle)
    assert list(bundle.variants) == ["fp32.onnx", "fp32.xml", "int8.onnx", "int8.xml"]
    assert bundle.variants["int8.xml"].files == ("int8.xml", "int8.bin")
    assert bundle.embedding_size == 256
    assert bundle.preprocessing.image_size == 32
    assert bundle.default.name in ("fp32.onnx", "int8.onnx")


def test_variants_are_found_by_precision_and_by_name(finished_bundle: Path):
    bundle = Bundle.open(finished_bundle)
    assert [each.name for each in bundle.find("int8")] == ["int8.onnx", "int8.xml"]
    assert [each.name for each in bundle.find("fp32.xml")] == ["fp32.xml"]
    assert bundle.find("auto") == [bundle.default]
    with pytest.raises(UsageError, match=r"variant=fp16: .* has no such variant; it has fp32"):
        bundle.find("fp16")


@pytest.mark.parametrize("listed", [True, False])
def test_a_format_is_read_from_the_manifest_and_else_from_the_suffix(bundle: Path, listed: bool):
    def change(manifest: dict[str, Any]) -> None:
        for name, entry in manifest["variants"].items():
            entry.pop("format", None)
            if listed:
                entry["format"] = name.split(".")[1]

    change_manifest(bundle, change)
    variants = Bundle.open(bundle).variants
    assert [(each.precision, each.format) for each in variants.values()] == [
        ("fp32", "onnx"), ("fp32", "xml"), ("int8", "onnx"), ("int8", "xml")
    ]  # fmt: skip
    assert Encoder(bundle, "int8", "openvino").variant == "int8.xml"


def test_a_variant_of_an_unknown_format_is_in_nobodys_way(bundle: Path):
    change_manifest(bundle, lambda manifest: manifest["variants"]["fp32.xml"].update(format="tpu"))
    opened = Bundle.open(bundle)
    assert Encoder(bundle, "fp32", "openvino").variant == "fp32.onnx"
    with pytest.raises(UsageError, match=r"backend=openvino does not run fp32\.xml"):
        Encoder(bundle, "fp32.xml", "openvino")
    with pytest.raises(BundleError, match=r"fp32\.xml: this byol-edge does not read the format 'tpu'"):
        opened.model(opened.variants["fp32.xml"])


@pytest.mark.parametrize("files", [["fp32.xml"], ["fp32.bin", "fp32.xml"], ["fp32.xml", "fp32.bin", "int8.bin"]])
def test_a_variant_without_the_files_of_its_format_is_refused(bundle: Path, files: list[str]):
    change_manifest(bundle, lambda manifest: manifest["variants"]["fp32.xml"].update(files=files))
    with pytest.raises(
        BundleError, match=r"fp32\.xml: its files have to be \.xml and \.bin, manifest\.json names fp32"
    ):
        Encoder(bundle, "fp32.xml")


@pytest.mark.parametrize("name", ["fp32.onnx", "int8.onnx", "fp32.bin", "fp32.xml", "int8.bin", "int8.xml"])
def test_one_changed_byte_in_a_model_file_is_refused(bundle: Path, name: str):
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name}: changed since export"):
        Encoder(bundle, variant=name.replace(".bin", ".xml"))


def test_only_the_files_that_are_loaded_need_be_there(bundle: Path):
    for file in bundle.iterdir():
        if file.name not in ("manifest.json", "int8.onnx"):
            file.rename(bundle.parent / file.name)
    assert Encoder(bundle, "int8").variant == "int8.onnx"
    with pytest.raises(BundleError, match=r"fp32\.xml are not here; name another as the variant \(here: int8\.onnx\)"):
        Encoder(bundle, "fp32.xml")


def test_what_is_no_bundle_is_said_to_be_none(tmp_path: Path, bundle: Path):
    with pytest.raises(BundleError, match=r"gone: no such folder; .*export"):
        Bundle.open(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match=r"empty: not a bundle"):
        Bundle.open(tmp_path / "empty")
    (bundle / "manifest.json").write_text("{ half")
    with pytest.raises(BundleError, match=r"manifest\.json: unreadable"):
        Bundle.open(bundle)
    (bundle / "manifest.json").write_text("[1, 2]")
    with pytest.raises(BundleError, match="not a manifest of this project"):
        Bundle.open(bundle)


def test_a_newer_format_says_what_to_install(bundle: Path):
    change_manifest(bundle, lambda manifest: manifest.update(format_version=99, format_reader="byol-edge>=7.2"))
    with pytest.raises(BundleError, match=r"manifest\.json: .*format 99 is newer .* pip install 'byol-edge>=7\.2'"):
        Bundle.open(bundle)


@pytest.mark.parametrize("name", ["../secret.onnx", "/etc/passwd", "golden/../../x", "..\\x"])
def test_a_manifest_that_points_out_of_its_folder_is_refused(bundle: Path, name: str):
    def point(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = manifest["files"]["fp32.onnx"]
        manifest["variants"]["fp32.onnx"]["files"] = [name]

    change_manifest(bundle, point)
    with pytest.raises(BundleError, match="points out of the bundle"):
        Bundle.open(bundle)


def test_a_manifest_that_does_not_fit_its_model_is_seen(bundle: Path):
    change_manifest(bundle, lambda manifest: manifest.update(embedding_size=999))
    with pytest.raises(BundleError, match=r"manifest\.json says 999"):
        Encoder(bundle).self_test()
    other = {"image_size": 64, "mean": [0, 0, 0], "std": [1, 1, 1], "fit": "crop"}
    change_manifest(bundle, lambda manifest: manifest.update(preprocessing=other))
    with pytest.raises(BundleError, match="says of itself"):
        Encoder(bundle)


@pytest.mark.parametrize(
    "changes",
    [
        {"default": "fp8.onnx"},
        {"variants": {}},
        {"preprocessing": {}},
        {"preprocessing": {"image_size": 32, "mean": [0.5], "std": [1, 1, 1]}},
        {"preprocessing": {"image_size": -1, "mean": [0, 0, 0], "std": [1, 1, 1]}},
        {"preprocessing": {"image_size": 32, "mean": [10**400, 0, 0], "std": [1, 1, 1], "fit": "crop"}},
        {"embedding_size": "x"},
        {"embedding_size": float("inf")},
        {"files": {}},
        {"files": {"fp32.onnx": "x"}},
        {"network": None},
        {"network": {"backbone": 3, "stem": "small"}},
        {"variants": {"fp32.onnx": {**ENTRY, "format": 3}}},
        {"variants": {"fp32.onnx": {**ENTRY, "precision": "fp8"}}},
    ],
)
def test_a_manifest_that_lacks_something_is_refused(bundle: Path, changes: dict[str, Any]):
    change_manifest(bundle, lambda manifest: manifest.update(changes))
    with pytest.raises(BundleError, match="not a manifest of this project"):
        Bundle.open(bundle)
