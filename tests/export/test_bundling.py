import dataclasses
import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from byol_edge.evaluate.validate import validate
from byol_edge.export import bundling, source
from byol_edge.export.bundling import ExportedVariant, choose_default, export_bundle
from byol_edge.export.config import ExportConfig
from byol_edge.models.backbones import build_backbone
from byol_edge.models.byol import BYOL
from byol_edge.models.network import InferenceNetwork
from byol_edge.runtime import Encoder, FidelityError, OutputExistsError, RunError, UsageError, compare, find_images
from byol_edge.runtime.fidelity import Fidelity, neighbor_overlap
from byol_edge.runtime.files import sha256
from byol_edge.runtime.preprocessing import prepare_all
from byol_edge.runtime.timing import Timing
from onnx import numpy_helper

FAITHFUL = Fidelity(100, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0)


def exported(name: str, ms: float, cosine: float = 1.0, failures: tuple[str, ...] = ()) -> ExportedVariant:
    fidelity = dataclasses.replace(FAITHFUL, cosine_mean=cosine)
    return ExportedVariant(name, name[:4], "onnxruntime", 1, fidelity, failures, Timing(ms, ms, ms))


def test_the_fastest_within_its_gates_is_the_default():
    assert choose_default((exported("fp32.onnx", 3.0), exported("int8.onnx", 1.0, 0.995))) == "int8.onnx"


def test_a_variant_that_misses_its_gates_is_never_the_default():
    assert choose_default((exported("fp32.onnx", 3.0), exported("int8.onnx", 1.0, 0.9, ("cosine",)))) == "fp32.onnx"


def test_a_small_lead_counts_as_none_and_the_more_faithful_wins():
    assert choose_default((exported("fp32.onnx", 1.05), exported("int8.onnx", 1.0, 0.995))) == "fp32.onnx"


def test_the_default_runs_on_every_device():
    assert choose_default((exported("fp32.onnx", 3.0), exported("int8.xml", 0.5, 0.999))) == "fp32.onnx"


def test_the_manifest_lists_every_file_with_its_hash(finished_bundle: Path):
    manifest = json.loads((finished_bundle / "manifest.json").read_text())
    there = {path.relative_to(finished_bundle).as_posix() for path in finished_bundle.rglob("*") if path.is_file()}
    assert manifest["files"].keys() == there - {"manifest.json", "measured.json"}
    for name, entry in manifest["files"].items():
        content = (finished_bundle / name).read_bytes()
        assert (entry["sha256"], entry["size"]) == (sha256(content), len(content))
    assert manifest["provenance"]["training"]["network"] == "online"
    assert manifest["provenance"]["export"]["calibration"]["images"] == 81


def test_the_weights_are_those_of_the_run(finished_run: Path, finished_bundle: Path):
    name = "encoder.safetensors"
    assert (finished_bundle / name).read_bytes() == (finished_run / name).read_bytes()


def test_the_same_run_gives_the_same_bytes_in_another_process(
    finished_run: Path, finished_bundle: Path, tmp_path: Path
):
    command = [sys.executable, "-m", "byol_edge.cli.main", "export", str(finished_run), "--int8", "--out", "bundle"]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    for file in finished_bundle.rglob("*"):
        if file.is_file() and file.name not in ("measured.json", "manifest.json"):
            other = tmp_path / "bundle" / file.relative_to(finished_bundle)
            assert file.read_bytes() == other.read_bytes(), file.name
    one, other = (
        json.loads((folder / "manifest.json").read_text()) for folder in (finished_bundle, tmp_path / "bundle")
    )
    # Which variant is the default may follow the machine's speed on a network as small as this one.
    assert one | {"default": ""} == other | {"default": ""}


def test_without_int8_there_are_two_variants(finished_run: Path, tmp_path: Path):
    result = export_bundle(finished_run, tmp_path / "b", ExportConfig())
    assert [each.name for each in result.variants] == ["fp32.onnx", "fp32.xml"]
    assert not (tmp_path / "b" / "int8.onnx").exists()
    assert result.default == "fp32.onnx"


def test_int8_that_misses_its_gates_is_written_and_marked(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    compare = bundling.compare

    def harsh(reference: np.ndarray, vectors: np.ndarray) -> Fidelity:
        fidelity = compare(reference, vectors)
        return fidelity if fidelity.cosine_min > 0.99999 else dataclasses.replace(fidelity, cosine_mean=0.5)

    monkeypatch.setattr(bundling, "compare", harsh)
    result = export_bundle(finished_run, tmp_path / "b", ExportConfig(int8=True))
    missed = [each for each in result.variants if each.failures]
    assert {each.name for each in missed} == {"int8.onnx", "int8.xml"}
    assert "mean cosine to PyTorch 0.500000, needs ≥ 0.99" in missed[0].failures[0]
    assert result.default == "fp32.onnx"
    assert Encoder(tmp_path / "b").variant == "fp32.onnx"
    assert Encoder(tmp_path / "b", "int8").self_test().passed  # held to what it was at export


def test_an_fp32_variant_that_is_wrong_stops_the_export(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    embed_pixels = source.embed_pixels
    monkeypatch.setattr(source, "embed_pixels", lambda network, pixels: embed_pixels(network, pixels[::-1].copy()))
    with pytest.raises(FidelityError, match=r"fp32\.onnx is not what PyTorch computes.*Nothing was written"):
        export_bundle(finished_run, tmp_path / "b", ExportConfig())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_half_written(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bundling, "write_golden", full)
    with pytest.raises(OSError, match="No space left"):
        export_bundle(finished_run, tmp_path / "b", ExportConfig())
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_is_refused_before_any_work(run: Path, bundle: Path):
    shutil.rmtree(run)
    with pytest.raises(OutputExistsError, match="--overwrite"):
        export_bundle(run, bundle, ExportConfig(int8=True))
    with pytest.raises(RunError, match="no such run"):
        export_bundle(run, bundle, ExportConfig(int8=True), overwrite=True)
    assert Encoder(bundle).self_test().passed


def test_fp16_is_half_the_size_and_computes_the_same(finished_run: Path, tmp_path: Path):
    result = export_bundle(finished_run, tmp_path / "b", ExportConfig(fp16=True))
    by_name = {each.name: each for each in result.variants}
    assert set(by_name) == {"fp32.onnx", "fp16.onnx", "fp32.xml", "fp16.xml"}
    for kind in ("onnx", "xml"):
        assert by_name[f"fp16.{kind}"].size < 0.55 * by_name[f"fp32.{kind}"].size
        assert not by_name[f"fp16.{kind}"].failures
        assert by_name[f"fp16.{kind}"].fidelity.cosine_min > 0.99999
    assert Encoder(tmp_path / "b", "fp16").self_test().passed


@pytest.mark.parametrize(("formats", "files"), [("onnx", {".onnx"}), ("openvino", {".xml", ".bin"})])
def test_one_format_can_be_asked_for(finished_run: Path, tmp_path: Path, formats: str, files: set[str]):
    result = export_bundle(finished_run, tmp_path / "b", ExportConfig(formats=(formats,)))
    suffixes = {file.suffix for file in (tmp_path / "b").iterdir()} - {".json", ".npz", ".safetensors", ""}
    assert suffixes == files
    assert result.default in {each.name for each in result.variants}
    assert Encoder(tmp_path / "b", backend="auto" if formats == "onnx" else "openvino").self_test().passed


def test_without_openvino_the_others_are_exported(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    notes: list[str] = []
    for name in ("openvino_format", "openvino_int8"):
        monkeypatch.delattr(f"byol_edge.export.{name}", raising=False)
        monkeypatch.setitem(sys.modules, f"byol_edge.export.{name}", None)
    result = export_bundle(finished_run, tmp_path / "b", ExportConfig(), note=notes.append)
    assert [each.name for each in result.variants] == ["fp32.onnx"]
    assert any("OpenVINO's variants are left out" in line for line in notes)


def test_a_folder_calibrates_in_place_of_the_run(run: Path, photos: Path, tmp_path: Path):
    (run / "calibration.npz").unlink()
    with pytest.raises(RunError, match="--calibration DIR"):
        export_bundle(run, tmp_path / "b", ExportConfig())
    images = Path(shutil.copytree(photos, tmp_path / "images"))
    (images / "broken.jpg").write_bytes(b"x")
    notes: list[str] = []
    result = export_bundle(
        run, tmp_path / "b", ExportConfig(int8=True, calibration=images, formats=("onnx",)), note=notes.append
    )
    assert result.calibration_images == 90
    assert any("broken.jpg" in line for line in notes)
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert manifest["provenance"]["export"]["calibration"]["of"] == "a folder"
    assert str(tmp_path) not in (tmp_path / "b" / "manifest.json").read_text()


def test_no_image_of_a_users_is_in_a_bundle_that_is_to_have_none(finished_run: Path, tmp_path: Path):
    result = export_bundle(finished_run, tmp_path / "b", ExportConfig(no_images=True, formats=("onnx",)))
    assert result.golden_images == 0
    with np.load(finished_run / "calibration.npz") as run, np.load(tmp_path / "b" / "golden.npz") as bundle:
        kept = {image.tobytes() for image in run["images"]}
        assert not any(image.tobytes() in kept for image in bundle["images"])
        assert len({image.tobytes() for image in bundle["images"]}) == 16
    assert Encoder(tmp_path / "b").self_test().passed


def test_the_manifest_tells_what_was_tried(finished_bundle: Path):
    ladders = json.loads((finished_bundle / "manifest.json").read_text())["provenance"]["export"]["ladders"]
    assert set(ladders) == {"int8.onnx", "int8.xml"}
    tried = {name: [rung["name"] for rung in ladder["tried"]] for name, ladder in ladders.items()}
    assert tried["int8.onnx"][0] == "min-max ranges"
    assert tried["int8.xml"][:2] == ["NNCF's defaults", "min-max ranges"]
    assert all(ladder["kept"] in tried[name] for name, ladder in ladders.items())


@pytest.mark.parametrize("target", ["cpu-avx2", "arm"])
def test_number_formats_follow_the_target(finished_run: Path, tmp_path: Path, target: str):
    export_bundle(finished_run, tmp_path / "b", ExportConfig(int8=True, formats=("onnx",), target=target))
    model = onnx.load(tmp_path / "b" / "int8.onnx")
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    zeros = [
        weights[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear" and len(node.input) > 2
    ]
    stored = [
        array for name, array in weights.items() if array.dtype == np.int8 and array.ndim == 4 and "quantized" in name
    ]
    assert len(stored) == 4
    if target == "arm":
        assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    else:
        assert all(np.abs(array).max() <= 64 for array in stored)


def test_projections_in_place_of_embeddings(finished_run: Path, photos: Path, tmp_path: Path):
    export_bundle(finished_run, tmp_path / "b", ExportConfig(with_projector=True, formats=("onnx",)))
    state = torch.load(finished_run / "last.pt", weights_only=True)
    settings = json.loads((finished_run / "config.json").read_text())["settings"]
    byol = BYOL(build_backbone("conv4", 32), 256, settings["projector_hidden"], settings["projection_size"])
    byol.load_state_dict(state["byol"])
    byol.eval()
    encoder = Encoder(tmp_path / "b", "fp32.onnx")
    pixels = prepare_all(find_images(photos)[::10], encoder.preprocessing)
    with torch.no_grad():
        inputs = InferenceNetwork(byol.backbone, encoder.preprocessing).inputs(torch.from_numpy(pixels))
        expected = byol.projector(byol.backbone(inputs)).numpy()
    assert compare(expected, encoder.run(pixels)).cosine_min > 0.99999
    assert validate(tmp_path / "b", photos).failures == []
    (tmp_path / "run").mkdir()
    for name in ("encoder.json", "encoder.safetensors", "calibration.npz"):
        shutil.copy(finished_run / name, tmp_path / "run")
    with pytest.raises(RunError, match="without --with-projector"):
        export_bundle(tmp_path / "run", tmp_path / "c", ExportConfig(with_projector=True))


def test_shorter_vectors_keep_neighbors(finished_run: Path, finished_bundle: Path, photos: Path, tmp_path: Path):
    export_bundle(finished_run, tmp_path / "b", ExportConfig(dimensions=32, formats=("onnx",)))
    whole = Encoder(finished_bundle, "fp32.onnx")
    short = Encoder(tmp_path / "b", "fp32.onnx")
    pixels = prepare_all(find_images(photos), short.preprocessing)
    assert short.run(pixels).shape == (120, 32)
    embeddings = whole.run(pixels)
    drawn = np.random.default_rng(0).normal(size=(256, 32)).astype(np.float32)
    assert neighbor_overlap(embeddings, short.run(pixels)) > 0.1 + neighbor_overlap(embeddings, embeddings @ drawn)
    assert validate(tmp_path / "b", photos, against=finished_run).failures == []
    assert (tmp_path / "b" / "encoder.safetensors").read_bytes() != (finished_run / "encoder.safetensors").read_bytes()
    for wrong in (0, 82, 1000):
        with pytest.raises(UsageError, match=f"--dim {wrong}: has to be 1 to 81"):
            export_bundle(finished_run, tmp_path / "c", ExportConfig(dimensions=wrong))
