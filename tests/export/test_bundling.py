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
import safetensors.torch
import torch
from byol_edge.evaluate.validate import validate
from byol_edge.export import bundling, source
from byol_edge.export.bundling import Export, ExportedVariant, choose_default, export_bundle
from byol_edge.export.config import ExportConfig
from byol_edge.models.backbones import build_backbone
from byol_edge.models.byol import BYOLConfig
from byol_edge.models.network import InferenceNetwork
from byol_edge.runtime import (
    Bundle,
    Encoder,
    EngineError,
    FidelityError,
    OutputExistsError,
    RunError,
    UsageError,
    compare,
    find_images,
)
from byol_edge.runtime.fidelity import Fidelity, neighbor_overlap
from byol_edge.runtime.files import sha256
from byol_edge.runtime.openvino_backend import OpenVinoBackend
from byol_edge.runtime.preprocessing import prepare_all
from byol_edge.runtime.timing import Timing
from onnx import numpy_helper

pytestmark = pytest.mark.usefixtures("short_timing")

FAITHFUL = Fidelity(100, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0)


@dataclasses.dataclass(frozen=True)
class Made:
    """A bundle that several tests look at, and what export returned."""

    path: Path
    export: Export

    @property
    def variants(self) -> dict[str, ExportedVariant]:
        return {each.name: each for each in self.export.variants}


@pytest.fixture(scope="module")
def halved(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    out = tmp_path_factory.mktemp("halved") / "b"
    return Made(out, export_bundle(finished_run, out, ExportConfig(fp16=True)))


@pytest.fixture(scope="module")
def shorter(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """With 32 dimensions."""
    out = tmp_path_factory.mktemp("shorter") / "b"
    return Made(out, export_bundle(finished_run, out, ExportConfig(dimensions=32)))


@pytest.fixture(scope="module")
def projections(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """With the projector, in ONNX alone, with drawn reference images."""
    out = tmp_path_factory.mktemp("projections") / "b"
    config = ExportConfig(with_projector=True, formats=("onnx",), no_images=True)
    return Made(out, export_bundle(finished_run, out, config))


@pytest.fixture(scope="module")
def openvino_alone(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    out = tmp_path_factory.mktemp("openvino") / "b"
    return Made(out, export_bundle(finished_run, out, ExportConfig(formats=("openvino",))))


@pytest.fixture(scope="module")
def judged_harshly(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Whose INT8, for ARM, misses its gates."""
    fair = bundling.compare

    def harsh(reference: np.ndarray, vectors: np.ndarray) -> Fidelity:
        fidelity = fair(reference, vectors)
        return fidelity if fidelity.cosine_min > 0.99999 else dataclasses.replace(fidelity, cosine_mean=0.5)

    out = tmp_path_factory.mktemp("harsh") / "b"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundling, "compare", harsh)
        return Made(out, export_bundle(finished_run, out, ExportConfig(int8=True, target="arm")))


@pytest.fixture(scope="module")
def images_with_a_broken_one(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = Path(shutil.copytree(photos, tmp_path_factory.mktemp("calibration") / "images"))
    (images / "broken.jpg").write_bytes(b"x")
    return images


@pytest.fixture(scope="module")
def calibrated_elsewhere(
    finished_run: Path, images_with_a_broken_one: Path, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    """For CPUs without VNNI, in ONNX alone, of a run that keeps no images."""
    folder = tmp_path_factory.mktemp("elsewhere")
    run = Path(shutil.copytree(finished_run, folder / "run"))
    (run / "calibration.npz").unlink()
    config = ExportConfig(int8=True, calibration=images_with_a_broken_one, formats=("onnx",), target="cpu-avx2")
    return Made(folder / "b", export_bundle(run, folder / "b", config))


def exported(name: str, ms: float, cosine: float = 1.0, failures: tuple[str, ...] = ()) -> ExportedVariant:
    """A variant of this precision and format: "int8 onnx"."""
    precision, its_format = name.split()
    fidelity = dataclasses.replace(FAITHFUL, cosine_mean=cosine)
    return ExportedVariant(
        name, precision, its_format, "an engine", 1, fidelity, failures, Timing(ms, ms, ms, ms), 1.0, {}, {}
    )


def test_the_fastest_within_its_gates_is_the_default():
    assert choose_default((exported("fp32 onnx", 3.0), exported("int8 onnx", 1.0, 0.995))) == "int8 onnx"


def test_a_variant_that_misses_its_gates_is_never_the_default():
    assert choose_default((exported("fp32 onnx", 3.0), exported("int8 onnx", 1.0, 0.9, ("cosine",)))) == "fp32 onnx"


def test_a_small_lead_counts_as_none_and_the_more_faithful_wins():
    assert choose_default((exported("fp32 onnx", 1.05), exported("int8 onnx", 1.0, 0.995))) == "fp32 onnx"


def test_the_default_runs_on_every_device():
    assert choose_default((exported("fp32 onnx", 3.0), exported("int8 xml", 0.5, 0.999))) == "fp32 onnx"


def test_the_default_is_the_fastest_on_any_engine_but_runs_on_its_own():
    fp32, int8 = exported("fp32 onnx", 1.0), exported("int8 onnx", 1.5, 0.995)
    by_another = dataclasses.replace(int8, engine="another", timing=Timing(0.5, 0.5, 0.5, 0.5), agreement=0.999)
    assert choose_default((fp32, int8, by_another)) == "int8 onnx"
    missed = dataclasses.replace(int8, failures=("cosine",))
    assert choose_default((fp32, missed, by_another)) == "fp32 onnx"
    wrong = dataclasses.replace(by_another, failures=("cosine",))
    assert choose_default((fp32, int8, wrong)) == "fp32 onnx"


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
    weights = safetensors.torch.load_file(finished_run / "encoder.safetensors")
    # Without the metadata of a run's.
    assert (finished_bundle / "encoder.safetensors").read_bytes() == safetensors.torch.save(weights)


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


def test_without_int8_there_are_two_variants(shorter: Made):
    assert list(shorter.variants) == ["fp32.onnx", "fp32.xml"]
    assert not (shorter.path / "int8.onnx").exists()
    assert shorter.export.default == "fp32.onnx"
    assert shorter.export.searches == {}


def test_a_variant_says_what_it_is(halved: Made):
    kinds = [(each.name, each.precision, each.format, each.engine) for each in halved.export.variants]
    assert kinds == [
        ("fp32.onnx", "fp32", "onnx", "onnxruntime"),
        ("fp32.onnx", "fp32", "onnx", "openvino"),
        ("fp16.onnx", "fp16", "onnx", "onnxruntime"),
        ("fp16.onnx", "fp16", "onnx", "openvino"),
        ("fp32.xml", "fp32", "xml", "openvino"),
        ("fp16.xml", "fp16", "xml", "openvino"),
    ]


def test_the_manifest_says_how_closely_engines_agree(halved: Made, openvino_alone: Made, photos: Path):
    fp16 = Bundle.open(halved.path).variants["fp16.onnx"]
    own, other = sorted(fp16.engines, key=lambda each: each.engine)
    assert (own.engine, own.passes, own.cosine) == ("onnxruntime", True, 1)
    assert (other.engine, other.passes) == ("openvino", True)
    assert other.cosine == pytest.approx(halved.export.variants[3].agreement, abs=1e-6)
    assert 0.999 < other.cosine <= 1 + 1e-6
    assert [each.engine for each in Bundle.open(openvino_alone.path).variants["fp32.xml"].engines] == ["openvino"]


def test_an_engine_that_fails_on_a_network_is_left_out(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(self: OpenVinoBackend, images: np.ndarray) -> None:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(OpenVinoBackend, "run", fail)
    made = export_bundle(finished_run, tmp_path / "b", ExportConfig(formats=("onnx",)))
    assert [each.engine for each in made.variants] == ["onnxruntime"]
    assert Encoder(tmp_path / "b").engine == "onnxruntime"


def test_int8_that_misses_its_gates_is_written_and_marked(judged_harshly: Made):
    missed = [each for each in judged_harshly.export.variants if each.failures]
    assert {each.name for each in missed} == {"int8.onnx", "int8.xml"}
    assert "mean cosine to PyTorch 0.500000, needs ≥ 0.99" in missed[0].failures[0]
    assert judged_harshly.export.default == "fp32.onnx"
    assert Encoder(judged_harshly.path).variant == "fp32.onnx"
    assert Encoder(judged_harshly.path, "int8").self_test().passed  # held to what it was at export


def test_an_fp32_variant_that_is_wrong_stops_the_export(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    embed_pixels = source.embed_pixels
    monkeypatch.setattr(source, "embed_pixels", lambda network, pixels: embed_pixels(network, pixels[::-1].copy()))
    with pytest.raises(FidelityError, match=r"fp32\.onnx is not what PyTorch computes.*Nothing was written"):
        export_bundle(finished_run, tmp_path / "b", ExportConfig(formats=("onnx",)))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_half_written(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bundling, "write_golden", full)
    with pytest.raises(OSError, match="No space left"):
        export_bundle(finished_run, tmp_path / "b", ExportConfig(formats=("onnx",)))
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_is_refused_before_any_work(run: Path, bundle: Path):
    shutil.rmtree(run)
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        export_bundle(run, bundle, ExportConfig(int8=True))
    with pytest.raises(RunError, match="no run, no bundle, no checkpoint"):
        export_bundle(run, bundle, ExportConfig(int8=True), overwrite=True)
    assert Encoder(bundle).self_test().passed


def test_fp16_is_half_the_size_and_computes_the_same(halved: Made):
    assert set(halved.variants) == {"fp32.onnx", "fp16.onnx", "fp32.xml", "fp16.xml"}
    for kind in ("onnx", "xml"):
        half = halved.variants[f"fp16.{kind}"]
        assert half.size < 0.55 * halved.variants[f"fp32.{kind}"].size
        assert not half.failures
        assert half.fidelity.cosine_min > 0.99999
    assert Encoder(halved.path, "fp16").self_test().passed


@pytest.mark.parametrize(
    ("made", "files"), [("projections", {".onnx"}), ("openvino_alone", {".xml", ".bin"})], ids=["onnx", "openvino"]
)
def test_one_format_can_be_asked_for(made: str, files: set[str], request: pytest.FixtureRequest):
    bundle: Made = request.getfixturevalue(made)
    suffixes = {file.suffix for file in bundle.path.iterdir()} - {".json", ".npz", ".safetensors", ""}
    assert suffixes == files
    assert bundle.export.default in bundle.variants
    assert Encoder(bundle.path, backend="openvino" if ".xml" in files else "auto").self_test().passed


def test_without_openvino_the_others_are_exported(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setitem(sys.modules, "openvino", None)
    result = export_bundle(str(finished_run), str(tmp_path / "b"))
    assert [each.name for each in result.variants] == ["fp32.onnx"]
    line = "OpenVINO's variants are left out: openvino is not installed (pip install 'byol-edge[export]')"
    assert line in caplog.messages
    with pytest.raises(EngineError, match=r"formats=openvino: openvino is not installed \(pip install"):
        export_bundle(finished_run, tmp_path / "c", ExportConfig(formats=("openvino",)))
    assert not (tmp_path / "c").exists()


def test_a_folder_calibrates_in_place_of_the_run(
    calibrated_elsewhere: Made, run: Path, images_with_a_broken_one: Path, tmp_path: Path
):
    (run / "calibration.npz").unlink()
    with pytest.raises(RunError, match="calibration=DIR"):
        export_bundle(run, tmp_path / "b", ExportConfig())
    assert calibrated_elsewhere.export.calibration_images == 90
    text = (calibrated_elsewhere.path / "manifest.json").read_text()
    assert json.loads(text)["provenance"]["export"]["calibration"]["of"] == "a folder"
    assert str(images_with_a_broken_one.parent) not in text


def test_unreadable_images_to_calibrate_with_are_named(
    images_with_a_broken_one: Path, finished_run: Path, caplog: pytest.LogCaptureFixture
):
    source.load_source(finished_run, ExportConfig(calibration=images_with_a_broken_one))
    assert any("broken.jpg" in line for line in caplog.messages)


def test_no_image_of_a_users_is_in_a_bundle_that_is_to_have_none(finished_run: Path, projections: Made):
    assert projections.export.golden_images == 0
    with np.load(finished_run / "calibration.npz") as run, np.load(projections.path / "golden.npz") as bundle:
        kept = {image.tobytes() for image in run["images"]}
        assert not any(image.tobytes() in kept for image in bundle["images"])
        assert len({image.tobytes() for image in bundle["images"]}) == 16
    assert Encoder(projections.path).self_test().passed


def test_the_manifest_tells_what_was_tried(finished_bundle: Path):
    searches = json.loads((finished_bundle / "manifest.json").read_text())["provenance"]["export"]["searches"]
    assert set(searches) == {"int8.onnx", "int8.xml"}
    tried = {name: [trial["name"] for trial in search["tried"]] for name, search in searches.items()}
    assert tried["int8.onnx"][0] == "min-max ranges"
    assert tried["int8.xml"][:2] == ["NNCF's defaults", "min-max ranges"]
    assert all(search["kept"] in tried[name] for name, search in searches.items())


def test_speeds_lie_beside_the_manifest(finished_bundle: Path):
    measured = json.loads((finished_bundle / "measured.json").read_text())
    assert measured["ms_per_image"].keys() == {"fp32.onnx", "int8.onnx", "fp32.xml", "int8.xml"}
    assert measured["ms_per_image"]["int8.xml"]["openvino"].keys() == {"median", "lower", "upper", "least"}
    assert measured["ms_per_image"]["int8.onnx"].keys() == {"onnxruntime", "openvino"}
    assert measured["seconds_to_quantize"]["int8.onnx"]["min-max ranges"] > 0


@pytest.mark.parametrize(("target", "made"), [("cpu-avx2", "calibrated_elsewhere"), ("arm", "judged_harshly")])
def test_number_formats_follow_the_target(target: str, made: str, request: pytest.FixtureRequest):
    bundle: Made = request.getfixturevalue(made)
    model = onnx.load(bundle.path / "int8.onnx")
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


def test_projections_in_place_of_embeddings(finished_run: Path, projections: Made, photos: Path, tmp_path: Path):
    state = torch.load(finished_run / "last.pt", weights_only=True)
    objective = json.loads((finished_run / "config.json").read_text())["settings"]["objective"]
    del objective["name"]
    byol = BYOLConfig(**objective).build(build_backbone("conv4", 32), 256, 32)
    byol.load_state_dict(state["objective"])
    byol.eval()
    encoder = Encoder(projections.path, "fp32.onnx")
    pixels = prepare_all(find_images(photos)[::10], encoder.preprocessing)
    with torch.no_grad():
        inputs = InferenceNetwork(byol.backbone, encoder.preprocessing).inputs(torch.from_numpy(pixels))
        expected = byol.projector(byol.backbone(inputs)).numpy()
    assert compare(expected, encoder.run(pixels)).cosine_min > 0.99999
    assert validate(projections.path, photos).failures == []
    (tmp_path / "run").mkdir()
    for name in ("config.json", "encoder.safetensors", "calibration.npz"):
        shutil.copy(finished_run / name, tmp_path / "run")
    with pytest.raises(RunError, match="what with_projector=True asks for; export without it"):
        export_bundle(tmp_path / "run", tmp_path / "c", ExportConfig(with_projector=True))


def test_shorter_vectors_keep_neighbors(
    finished_run: Path, finished_bundle: Path, shorter: Made, photos: Path, tmp_path: Path
):
    whole = Encoder(finished_bundle, "fp32.onnx")
    short = Encoder(shorter.path, "fp32.onnx")
    pixels = prepare_all(find_images(photos), short.preprocessing)
    assert short.run(pixels).shape == (120, 32)
    embeddings = whole.run(pixels)
    drawn = np.random.default_rng(0).normal(size=(256, 32)).astype(np.float32)
    assert neighbor_overlap(embeddings, short.run(pixels)) > 0.1 + neighbor_overlap(embeddings, embeddings @ drawn)
    assert validate(shorter.path, photos, against=finished_run).failures == []
    weights = [(path / "encoder.safetensors").read_bytes() for path in (shorter.path, finished_bundle)]
    assert weights[0] != weights[1]
    for wrong in (0, 82, 1000):
        with pytest.raises(UsageError, match=f"dimensions={wrong}: has to be from 1 to 81"):
            export_bundle(finished_run, tmp_path / "c", ExportConfig(dimensions=wrong))
