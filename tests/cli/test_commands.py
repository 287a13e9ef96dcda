"""The commands as typed: what they print, their exit codes, and what bad input gets."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from byol_edge.cli.bench import judge_default
from byol_edge.cli.main import COMMANDS
from byol_edge.runtime import Bundle, Encoder, load_vectors
from byol_edge.runtime.run import Run
from byol_edge.runtime.timing import Timing
from byol_edge.runtime.vectors import VectorFile, save_vectors
from commands import call, fails
from PIL import Image
from sabotage import change_manifest


def test_help_names_every_command_with_an_example():
    help_text = call("--help").stdout
    for command in COMMANDS:
        assert command.name is not None
        assert command.name in help_text
        assert "Example: byol-edge" in call(command.name, "--help").stdout or command.name == "demo"


def test_a_mistyped_command_gets_the_nearest():
    assert "Did you mean 'validate'?" in fails(2, "validat")
    assert "There are demo, train" in fails(2, "xyz")


def test_a_mistyped_option_gets_the_nearest():
    assert "--epochs" in fails(2, "train", "x", "--out", "y", "--epoch", "3")


def test_the_pipeline_in_five_commands(photos: Path, tmp_path: Path):
    run, bundle, vectors = tmp_path / "run", tmp_path / "bundle", tmp_path / "vectors.npz"
    config = ("--backbone", "conv4", "--image-size", 32, "--epochs", 1, "--workers", 0)
    trained = call("train", photos, "--out", run, *config)
    assert trained.exit_code == 0, trained.output
    assert "epoch 1: loss" in trained.stderr
    assert "byol-edge export" in trained.stdout
    exported = call("export", run, "--int8", "--out", bundle)
    assert exported.exit_code == 0, exported.output
    assert "The default, on every device, is" in exported.stdout
    assert "16 of your images" in exported.stdout
    validated = call("validate", bundle, "--data", photos)
    assert validated.exit_code == 0, validated.output
    assert "120 images, 3 classes" in validated.stdout
    embedded = call("embed", bundle, photos, "-o", vectors)
    assert embedded.exit_code == 0, embedded.output
    tested = call("self-test", bundle)
    assert tested.exit_code == 0
    assert "passed" in tested.stdout
    for path, word in (
        (run, "conv4"),
        (bundle, "int8.onnx"),
        (bundle / "int8.onnx", "256"),
        (vectors, "120, of 256 numbers each"),
    ):
        shown = call("inspect", path)
        assert shown.exit_code == 0
        assert word in shown.stdout


def test_embed_writes_what_the_encoder_gives(finished_bundle: Path, photos: Path, tmp_path: Path):
    assert call("embed", finished_bundle, photos, "-o", tmp_path / "v.npz").exit_code == 0
    content = load_vectors(tmp_path / "v.npz")
    encoder = Encoder(finished_bundle)
    assert content.model == encoder.id
    assert content.sources[0] == str(photos / "disc" / "00.png")
    np.testing.assert_allclose(content.vectors, encoder.embed(content.sources), atol=1e-6)


def test_embed_resumed_or_begun_again(finished_bundle: Path, photos: Path, tmp_path: Path):
    command = ("embed", finished_bundle, photos, "-o", tmp_path / "v.npz")
    (tmp_path / "v.npz.parts").mkdir()
    (tmp_path / "v.npz.parts" / "thesis.txt").write_text("mine")
    assert "is not a half-done embedding" in fails(2, *command, "--resume")
    (tmp_path / "v.npz.parts" / "thesis.txt").unlink()
    assert "give one of them" in fails(2, *command, "--resume", "--overwrite")
    assert call(*command, "--resume").exit_code == 0
    assert "is finished already\n" in call(*command, "--resume").stdout
    content = load_vectors(tmp_path / "v.npz")
    save_vectors(tmp_path / "v.npz", replace(content, sources=["gone", *content.sources[1:]]))
    assert "is finished already; 1 of 120 images are not in it" in call(*command, "--resume").stdout
    other = "fp32" if Encoder(finished_bundle).variant == "int8.onnx" else "int8"
    assert "do not mix" in fails(1, *command, "--resume", "--variant", other)


def test_embed_leaves_unreadable_images_out_and_strict_does_not(finished_bundle: Path, photos: Path, tmp_path: Path):
    images = Path(shutil.copytree(photos / "disc", tmp_path / "images"))
    (images / "broken.jpg").write_bytes(b"x")
    result = call("embed", finished_bundle, images, "-o", tmp_path / "v.npz")
    assert result.exit_code == 0
    assert "broken.jpg" in result.stderr
    assert "left out: 1 unreadable image" in result.stdout
    assert "1 of 41" in fails(1, "embed", finished_bundle, images, "-o", tmp_path / "w.npz", "--strict")
    assert not (tmp_path / "w.npz").exists()


def test_embed_does_not_replace_a_file_unasked(finished_bundle: Path, photos: Path, tmp_path: Path):
    out = tmp_path / "v.npz"
    out.write_text("mine")
    assert "--overwrite" in fails(2, "embed", finished_bundle, photos, "-o", out)
    assert out.read_text() == "mine"
    assert call("embed", finished_bundle, photos, "-o", out, "--overwrite").exit_code == 0
    assert "written as .npz or .parquet" in fails(2, "embed", finished_bundle, photos, "-o", tmp_path / "v.csv")


@pytest.mark.parametrize("command", ["export", "validate", "self-test", "inspect", "bench"])
def test_json_is_json_and_nothing_else(
    command: str, finished_run: Path, finished_bundle: Path, photos: Path, tmp_path: Path
):
    arguments = {
        "export": (finished_run, "--out", tmp_path / "b"),
        "validate": (finished_bundle, "--data", photos),
        "self-test": (finished_bundle,),
        "inspect": (finished_bundle,),
        "bench": (finished_bundle, "--seconds", 0.1),
    }[command]
    result = call(command, *arguments, "--json")
    assert result.exit_code == 0
    assert isinstance(json.loads(result.stdout), dict)


def test_bench_says_when_another_variant_would_be_faster_and_when_times_say_little(finished_bundle: Path):
    bundle = Bundle.open(finished_bundle)
    default = Encoder(finished_bundle)

    def judged(ms: float, another: Encoder, others: float, median: float = 0.0) -> list[str]:
        timings = (Timing(median or least, least, least, least) for least in (ms, others))
        return judge_default(bundle, list(zip((default, another), timings, strict=True)))

    taken = f"The default, {default.variant} on {default.engine}, takes 1.00 ms per image"
    (engine,) = {"onnxruntime", "openvino"} - {default.engine}
    for another in (Encoder(finished_bundle, "fp32.xml"), Encoder(finished_bundle, backend=engine)):
        assert judged(1.0, another, 0.95) == [f"{taken}, and nothing else within its gates is clearly faster here."]
        faster = f"{another.variant} on {another.engine} takes 0.50 ms here"
        assert judged(1.0, another, 0.5) == [f"{taken}; {faster}: name it to use it, for all images."]
    assert judged(1.0, another, 1.0, median=9.0)[0].startswith("Times vary widely")


def test_bench_times_every_variant_on_every_engine(finished_bundle: Path):
    result = json.loads(call("bench", finished_bundle, "--seconds", 0.1, "--json").stdout)
    assert {name.split(":", 1)[1] for name in result} == {
        *(f"{name}.onnx on {engine}" for name in ("fp32", "int8") for engine in ("onnxruntime", "openvino")),
        *(f"{name}.xml on openvino" for name in ("fp32", "int8")),
    }


def test_bad_input_to_train(photos: Path, finished_run: Path, tmp_path: Path):
    out = tmp_path / "run"
    (tmp_path / "empty").mkdir()
    assert "no images in it" in fails(1, "train", tmp_path / "empty", "--out", out)
    assert "no such folder" in fails(1, "train", tmp_path / "gone", "--out", out)
    assert "did you mean resnet18" in fails(2, "train", photos, "--out", out, "--backbone", "resnet-18")
    assert "fewer than a batch of 500" in fails(1, "train", photos, "--out", out, "--batch-size", 500)
    assert "exists already; go on with it: --resume" in fails(2, "train", photos, "--out", finished_run)
    assert "lies in" in fails(2, "train", photos, "--out", photos / "run")
    assert "--device bogus: cannot be used here" in fails(2, "train", photos, "--out", out, "--device", "bogus")
    assert "--seed" in fails(2, "train", photos, "--out", out, "--seed", 10**30)
    assert "no optimizer 'adam'" in fails(2, "train", photos, "--out", out, "--optimizer", "adam")
    assert "cannot be read" in fails(1, "train", photos, "--out", out, "--config", tmp_path / "gone.toml")
    assert "cannot be read" in fails(1, "train", photos, "--out", out, "--labels", tmp_path / "gone.csv")
    assert "no such folder" in fails(1, "train", photos, "--out", out, "--eval", tmp_path / "gone")
    size = ("--backbone", "inception_v3", "--image-size", 32)
    assert "takes no images of 32 px" in fails(2, "train", photos, "--out", out, *size)
    assert not out.exists()


def test_train_prints_every_setting_once_and_a_verdict(photos: Path, tmp_path: Path):
    config = tmp_path / "shop.toml"
    config.write_text('backbone = "conv4"\nimage_size = 32\nepochs = 7\nworkers = 0\n[views]\nblur = 0.25\n')
    given = ("--config", config, "--epochs", 1, "--optimizer", "sgd", "--fit", "pad", "--accumulate", 2)
    result = call("train", photos, "--out", tmp_path / "run", *given)
    assert result.exit_code == 0, result.output
    for text in (
        "108 images; 12 others, of 3 classes, measure kNN",
        "conv4 (standard stem) at 32 px (pad), random weights",
        "projector_hidden 1024, projection_size 256",
        "recipe small: 1 epoch in batches of 16 in 2 parts, sgd at 0.0019 after 0.1 epochs of warm-up",
        "blur 0.25",
        "before training: rank",
    ):
        assert text in result.stderr
    assert result.stdout.startswith(("healthy: rank", "doubtful: rank"))
    saved = Run(tmp_path / "run").read_config()["settings"]
    assert (saved["plan"]["epochs"], saved["fit"], saved["optimizer"]) == (1, "pad", "sgd")
    assert Run(tmp_path / "run").read_encoder().spec.preprocessing.fit == "pad"


def test_a_run_starts_from_another_and_says_so(photos: Path, finished_run: Path, tmp_path: Path):
    config = ("--backbone", "conv4", "--image-size", 32, "--epochs", 1, "--workers", 0)
    result = call("train", photos, "--out", tmp_path / "run", *config, "--init", finished_run)
    assert result.exit_code == 0, result.output
    assert f"weights from {finished_run}" in result.stderr
    another = ("--init", finished_run, "--backbone", "resnet18")
    line = fails(2, "train", photos, "--out", tmp_path / "other", *another)
    assert f"--backbone resnet18: {finished_run} is a run of conv4" in line
    assert "no run, no bundle, no checkpoint" in fails(
        1, "train", photos, "--out", tmp_path / "other", "--init", tmp_path / "gone"
    )
    assert not (tmp_path / "other").exists()


def test_the_target_can_be_exported(finished_run: Path, tmp_path: Path):
    assert call("export", finished_run, "--network", "target", "--out", tmp_path / "b").exit_code == 0
    assert "target network" in call("inspect", tmp_path / "b").stdout


def test_a_folder_of_odd_images_is_trained_on(tmp_path: Path, random: np.random.Generator):
    images = tmp_path / "images"
    images.mkdir()
    for mode, suffix in (("RGB", "jpg"), ("CMYK", "jpg"), ("L", "png"), ("P", "png"), ("RGBA", "png"), ("LA", "png")):
        for number in range(4):
            pixels = random.integers(0, 256, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(images / f"{mode}{number}.{suffix}")
    Image.fromarray(random.integers(0, 65536, (20, 20), dtype=np.uint16)).save(images / "sixteen.png")
    Image.new("RGB", (1, 1)).save(images / "pixel.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (30, 10)).save(images / "turned.jpg", exif=turned)
    (images / "corrupt.jpg").write_bytes((images / "RGB0.jpg").read_bytes()[:300])
    config = ("--backbone", "conv4", "--image-size", 16, "--epochs", 2, "--workers", 0, "--batch-size", 9)
    result = call("train", images, "--out", tmp_path / "run", *config)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("corrupt.jpg") == 1
    assert "left out: 1 unreadable image" in result.stderr


def test_a_training_that_cannot_start_leaves_the_old_run(photos: Path, run: Path, tmp_path: Path):
    (tmp_path / "junk").mkdir()
    for number in range(20):
        (tmp_path / "junk" / f"{number}.png").write_bytes(b"junk")
    before = (run / "encoder.safetensors").read_bytes()
    assert "none of the 20 images" in fails(1, "train", tmp_path / "junk", "--out", run, "--overwrite")
    assert (run / "encoder.safetensors").read_bytes() == before


def test_a_folder_of_somebody_elses_is_never_overwritten(finished_run: Path, tmp_path: Path):
    (tmp_path / "manifest.json").write_text('{"name": "my web app"}')
    (tmp_path / "photo.png").touch()
    line = fails(2, "export", finished_run, "--out", tmp_path, "--overwrite")
    assert "also holds photo.png" in line
    assert (tmp_path / "photo.png").exists()


@pytest.mark.parametrize("content", ["[]", "null", '{"settings": 3}', "{ half"])
def test_inspect_of_a_damaged_run_is_one_line(run: Path, content: str):
    (run / "config.json").write_text(content)
    line = fails(1, "inspect", run)
    assert "config.json: unreadable" in line
    assert line.endswith("--overwrite")  # a flag of another command's


@pytest.mark.parametrize("name", ["encoder.safetensors", "metrics.jsonl"])
def test_inspect_names_the_damaged_file_of_a_run(run: Path, name: str):
    (run / name).write_bytes(b"x")
    assert name in fails(1, "inspect", run)


@pytest.mark.parametrize("content", ["{}", '{"settings": null, "images": null}', '{"settings": {"plan": null}}'])
def test_inspect_shows_what_a_run_does_not_say_as_a_dash(run: Path, content: str):
    (run / "config.json").write_text(content)
    for name in ("encoder.safetensors", "metrics.jsonl"):
        (run / name).unlink()
    shown = call("inspect", run)
    assert shown.exit_code == 0, shown.output
    lines = dict(line.split(maxsplit=1) for line in shown.stdout.splitlines()[1:])
    assert lines["network"] == "–, – stem, – px"
    assert lines["recipe"] == "–, batches of –, – at –, seed –"
    assert (lines["images"], lines["epochs"], lines["verdict"]) == ("–", "0 of –", "–")


def test_inspect_of_a_run_says_what_it_is(finished_run: Path):
    shown = call("inspect", finished_run).stdout
    for text in (
        "108",
        "conv4, standard stem, 32 px",
        "small, batches of 16, adamw at",
        "seed 0",
        "2 of 2",
        "loss",
        "untrained",
        "torch",
    ):
        assert text in shown
    facts = json.loads(call("inspect", finished_run, "--json").stdout)
    assert facts["kind"] == "run"
    assert facts["verdict"] in shown
    assert facts["encoder"]["backbone"] == "conv4"
    assert facts["encoder"]["provenance"]["epoch"] == 2
    assert [each["epoch"] for each in facts["epochs"]] == [0, 1, 2]
    assert facts["settings"]["plan"]["batch_size"] == 16


def test_inspect_of_a_run_without_a_finished_epoch(run: Path):
    (run / "encoder.safetensors").unlink()
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text(lines[0] + "\n")
    shown = call("inspect", run).stdout
    assert "0 of 2" in shown
    assert "none finished" in shown
    facts = json.loads(call("inspect", run, "--json").stdout)
    assert (facts["verdict"], facts["encoder"]) == (None, None)


def test_inspect_shows_what_a_bundle_does_not_say_as_a_dash(bundle: Path):
    assert "quantized with" in call("inspect", bundle).stdout
    change_manifest(bundle, lambda manifest: manifest["provenance"]["training"].pop("seed"))
    change_manifest(bundle, lambda manifest: manifest["variants"]["int8.onnx"].pop("fidelity"))
    assert "seed –" in call("inspect", bundle).stdout
    change_manifest(bundle, lambda manifest: manifest.pop("provenance"))
    (bundle / "measured.json").write_text("{}")
    shown = call("inspect", bundle)
    assert shown.exit_code == 0, shown.output
    assert "weights     –\n  trained     –\n" in shown.stdout
    assert "conv4" in shown.stdout


@pytest.mark.parametrize(
    "measured", ["[]", '{"ms_per_image": [1]}', '{"ms_per_image": {"fp32.onnx": {"onnxruntime": {"median": "x"}}}}']
)
def test_inspect_needs_no_speeds(bundle: Path, measured: str):
    (bundle / "measured.json").write_text(measured)
    assert call("inspect", bundle).exit_code == 0


@pytest.mark.parametrize("name", ["v.npz", "v.parquet"])
def test_inspect_of_vectors_says_who_made_them(tmp_path: Path, name: str):
    content = VectorFile(np.ones((3, 4), np.float32), ["a", "b", "c"], "3f9a:int8.onnx", "onnxruntime")
    save_vectors(tmp_path / name, content)
    shown = call("inspect", tmp_path / name).stdout
    assert "3, of 4 numbers each" in shown
    assert content.model in shown and content.engine in shown


def test_inspect_of_damaged_vectors_is_one_line(tmp_path: Path):
    for number, content in enumerate((b"", b"junk")):
        (tmp_path / f"{number}.npz").write_bytes(content)
        assert f"{number}.npz: not a file of vectors" in fails(1, "inspect", tmp_path / f"{number}.npz")


def test_bad_input_to_export(run: Path, finished_run: Path, finished_bundle: Path, tmp_path: Path):
    (run / "encoder.safetensors").unlink()
    assert "no finished epoch" in fails(1, "export", run, "--out", tmp_path / "b")
    assert "no run, no bundle, no checkpoint" in fails(1, "export", tmp_path / "gone", "--out", tmp_path / "b")
    assert "exists already" in fails(2, "export", finished_run, "--out", finished_bundle)
    assert not (tmp_path / "b").exists()


def test_bad_bundles_in_every_device_command(bundle: Path, photos: Path, tmp_path: Path):
    for name in ("fp32.onnx", "int8.onnx"):
        content = bytearray((bundle / name).read_bytes())
        content[-1] ^= 1
        (bundle / name).write_bytes(content)
    for command in (("embed", bundle, photos, "-o", tmp_path / "v.npz"), ("self-test", bundle)):
        assert ".onnx: changed since export" in fails(1, *command)
        (bundle / "manifest.json").rename(bundle / "m")
        assert "not a bundle" in fails(1, *command)
        (bundle / "m").rename(bundle / "manifest.json")
    assert not (tmp_path / "v.npz").exists()
    assert "no such file" in fails(1, "inspect", tmp_path / "gone")
    assert "no run, no bundle, no checkpoint" in fails(1, "inspect", photos)


def test_a_failed_validation_exits_1_and_names_variant_and_figure(bundle: Path, photos: Path, tmp_path: Path):
    report = tmp_path / "junit.xml"
    line = fails(1, "validate", bundle, "--data", photos, "--min-overlap", 1, "--junit", report)
    assert "int8.onnx (onnxruntime)" in line
    assert "overlap of the 10 nearest" in line
    suite = ElementTree.parse(report).getroot()
    assert (suite.get("tests"), len(suite)) == ("7", 7)
    failed = [case.get("name") for case in suite if case.find("failure") is not None]
    assert str(len(failed)) == suite.get("failures")
    assert "int8.onnx on onnxruntime" in failed


def test_vectors_of_two_machines_are_compared(finished_bundle: Path, photos: Path, tmp_path: Path):
    first, second, other = (tmp_path / name for name in ("a.npz", "b.npz", "c.npz"))
    call("embed", finished_bundle, photos, "-o", first, "--variant", "fp32")
    elsewhere = shutil.copytree(photos, tmp_path / "elsewhere")
    call("embed", finished_bundle, elsewhere, "-o", second, "--variant", "fp32")
    call("embed", finished_bundle, elsewhere / "disc", "-o", other, "--variant", "fp32")
    compared = call("validate", "--vectors", first, second)
    assert compared.exit_code == 0, compared.output
    assert "120 images in both files, 0 in the first alone" in compared.stdout
    call("embed", finished_bundle, photos, "-o", second, "--variant", "int8", "--overwrite")
    assert "of two models" in fails(1, "validate", "--vectors", first, second)
    assert "have no image in common" in fails(1, "validate", "--vectors", first, other)
    assert "two files" in fails(2, "validate", finished_bundle, "--vectors", first, second)
    assert "give a BUNDLE" in fails(2, "validate", finished_bundle)


def test_debug_shows_the_traceback(tmp_path: Path):
    result = call("--debug", "self-test", tmp_path / "gone")
    assert result.exit_code == 1
    assert result.exception is not None
    assert "no such folder" in str(result.exception)
