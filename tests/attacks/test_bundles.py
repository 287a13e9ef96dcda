"""Bundles whose files are not what the manifest promises: refused by name, soon, and in bounded memory."""

import io
import json
import os
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from byol_edge.evaluate.reference import load_own_network
from byol_edge.runtime import Bundle, BundleError, ByolEdgeError, Encoder, RunError
from byol_edge.runtime.files import sha256
from byol_edge.runtime.run import Run
from commands import fails
from sabotage import change_manifest


def replace(bundle: Path, name: str, content: bytes) -> None:
    """Puts another file in place of one, and its hash and size into the manifest."""
    (bundle / name).write_bytes(content)
    change_manifest(
        bundle, lambda manifest: manifest["files"].update({name: {"sha256": sha256(content), "size": len(content)}})
    )


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize("name", ["manifest.json", "golden.npz", "fp32.onnx", "encoder.safetensors"])
def test_a_pipe_or_a_device_in_place_of_a_file_is_refused(bundle: Path, name: str):
    for make in (os.mkfifo, partial(os.symlink, "/dev/zero")):
        (bundle / name).unlink()
        make(bundle / name)
        with pytest.raises(ByolEdgeError, match=rf"{name}: .*not a regular file|the files of {name} are not here"):
            encoder = Encoder(bundle, "fp32.onnx")
            encoder.self_test()
            load_own_network(Bundle.open(bundle))


@pytest.mark.parametrize("name", ["config.json", "encoder.safetensors", "metrics.jsonl", "calibration.npz", "last.pt"])
def test_a_pipe_in_place_of_a_runs_file_is_refused(run: Path, name: str):
    (run / name).unlink()
    os.mkfifo(run / name)
    read = Run(run)
    with pytest.raises(RunError, match=rf"{name}: .*not a regular file"):
        _ = read.read_config(), read.read_encoder(), read.read_metrics(), read.read_calibration(32)
        read.read_checkpoint()


def test_a_file_that_is_larger_than_the_manifest_says_is_not_read(bundle: Path):
    with (bundle / "fp32.onnx").open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(BundleError, match=r"fp32\.onnx: changed since export \(larger than"):
        Encoder(bundle, "fp32.onnx")


def test_a_bomb_of_reference_images_is_not_unpacked(bundle: Path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", npz(images=np.zeros(3)))
        with archive.open("pytorch.npy", "w", force_zip64=True) as entry:
            for _ in range(40):
                entry.write(bytes(2**26))
    replace(bundle, "golden.npz", file.getvalue())
    with pytest.raises(BundleError, match=r"golden\.npz: .*unpacks from .* to 2\.7 GB"):
        Encoder(bundle, "fp32.onnx").self_test()


@pytest.mark.parametrize(
    "images", [np.uint8(3), np.zeros(0, np.uint8), np.zeros((0, 32, 32, 3), np.uint8), np.zeros((2, 32, 32, 3))]
)
def test_reference_images_of_another_shape_are_refused(bundle: Path, images: Any):
    with np.load(bundle / "golden.npz") as arrays:
        replace(bundle, "golden.npz", npz(**{**arrays, "images": images}))
    with pytest.raises(BundleError, match=r"golden\.npz"):
        Encoder(bundle, "fp32.onnx").self_test()


def test_a_huge_network_is_not_built_for_small_weights(bundle: Path):
    change_manifest(bundle, lambda manifest: manifest["network"].update(backbone="vit_giant_patch14_224"))
    with pytest.raises(RunError, match="tensors differ from vit_giant"):
        load_own_network(Bundle.open(bundle))


@pytest.mark.parametrize("depth", [100, 900, 100_000])
def test_a_manifest_nested_too_deep_is_refused(bundle: Path, depth: int):
    text = (bundle / "manifest.json").read_text()
    (bundle / "manifest.json").write_text(text.replace("{", '{"deep": ' + "[" * depth + "]" * depth + ",", 1))
    assert "nested too deep" in fails(1, "inspect", bundle)


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.update(embedding_size=0),
        lambda manifest: manifest.update(embedding_size=-1),
        lambda manifest: manifest.update(embedding_size=10**9),
        lambda manifest: manifest.update(embedding_size=None),
        lambda manifest: manifest["preprocessing"].update(image_size=10**6),
        lambda manifest: manifest["preprocessing"].update(image_size="x"),
        lambda manifest: manifest["preprocessing"].update(std=[float("nan"), 1, 1]),
        lambda manifest: manifest["preprocessing"].update(std=[-1, 1, 1]),
        lambda manifest: manifest["preprocessing"].update(mean=[float("inf"), 1, 1]),
        lambda manifest: manifest["network"].update(backbone=5),
        lambda manifest: manifest["files"]["fp32.onnx"].update(size=10**18),
        lambda manifest: manifest["files"]["fp32.onnx"].update(size=-1),
        lambda manifest: manifest["files"].update({"x" * 5000: manifest["files"]["fp32.onnx"]}),
        lambda manifest: manifest["files"].update({"a\x1b[2Jb": manifest["files"]["fp32.onnx"]}),
        lambda manifest: manifest["files"].update({"a\x00b": manifest["files"]["fp32.onnx"]}),
        lambda manifest: manifest["variants"].update({"x" * 5000: manifest["variants"]["fp32.onnx"]}),
    ],
)
def test_values_out_of_any_range_are_refused(bundle: Path, change: Callable[[dict[str, Any]], object]):
    change_manifest(bundle, change)
    with pytest.raises(BundleError, match=r"manifest\.json: .*") as raised:
        Bundle.open(bundle)
    assert len(str(raised.value)) < 600


@pytest.mark.parametrize("claim", [{"variant": None}, {"variant": "../x"}, {"embedding_size": 10**9}, {"precision": 5}])
def test_a_model_files_own_description_is_not_believed_either(bundle: Path, claim: dict[str, Any]):
    import onnx

    model = onnx.load(bundle / "fp32.onnx")
    (entry,) = model.metadata_props
    entry.value = json.dumps({**json.loads(entry.value), **claim})
    onnx.save(model, bundle / "alone.onnx")
    with pytest.raises(BundleError, match=r"alone\.onnx: its metadata is not byol-edge's"):
        Encoder(bundle / "alone.onnx")


def test_openvino_is_not_given_what_onnx_runtime_cannot_run(bundle: Path):
    """OpenVINO's reader of ONNX files ends the process on such a one."""
    import onnx

    model = onnx.load(bundle / "fp32.onnx")
    weights = next(each for each in model.graph.initializer if len(each.dims) == 4 and each.dims[0] == 256)
    weights.dims[:] = list(weights.dims)[::-1]
    onnx.save(model, bundle / "alone.onnx")
    with pytest.raises(ByolEdgeError, match=r"ONNX Runtime"):
        Encoder(bundle / "alone.onnx", backend="openvino")
