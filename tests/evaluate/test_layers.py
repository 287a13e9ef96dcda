from pathlib import Path

import pytest
from byol_edge.evaluate.layers import FILE_IS_RIGHT, Layer, locate_departure, measure_layers
from byol_edge.evaluate.plots import draw_layers
from byol_edge.evaluate.taps import TAPS
from byol_edge.runtime import ImageError
from commands import call, fails
from PIL import Image
from sabotage import double_a_scale

NAMES = ["bn1", "bn2", "bn3", "bn4", "embeddings"]


def test_every_layer_of_every_variant_is_measured(finished_bundle: Path, photos: Path):
    measured = measure_layers(finished_bundle, photos)
    assert set(measured) == {"fp32.onnx", "fp32.xml", "int8.onnx", "int8.xml"}
    for layers in measured.values():
        assert [layer.name for layer in layers] == NAMES
        assert all(layer.scale == pytest.approx(1, abs=0.05) for layer in layers)
    assert all(layer.signal_to_noise > 100 for name in ("fp32.onnx", "fp32.xml") for layer in measured[name])
    assert all(15 < layer.signal_to_noise < 60 for name in ("int8.onnx", "int8.xml") for layer in measured[name])


def test_a_doubled_scale_is_seen_where_it_is(bundle: Path, photos: Path):
    before = measure_layers(bundle, photos, variant="int8.onnx")["int8.onnx"]
    name = double_a_scale(bundle)
    after = measure_layers(bundle, photos, variant="int8.onnx")["int8.onnx"]
    place = NAMES.index(name)
    for layer, same in zip(after[:place], before[:place], strict=True):
        assert layer.signal_to_noise == pytest.approx(same.signal_to_noise, abs=0.5)
    assert after[place].signal_to_noise < 5
    assert after[place].scale > 1.5
    assert after[place].correlation > 0.9


def test_where_a_variant_goes_wrong_in_words():
    def locate(*ratios: float, quantized: bool = False) -> str:
        names = (*NAMES[: len(ratios) - 1], "embeddings")
        return locate_departure([Layer(name, ratio, 1.0) for name, ratio in zip(names, ratios, strict=True)], quantized)

    assert locate(120, 120, float("inf")) == FILE_IS_RIGHT
    assert "wrong from the first layer on" in locate(3, 2, 1)
    assert "right up to layer bn1, wrong after bn2" in locate(120, 30, 30)
    assert "each layer of the backbone is right, what follows is not" in locate(120, 120, 0)
    assert "signal to noise falls from 30 to 8 dB at layer bn3" in locate(35, 30, 8, 20, quantized=True)
    # A fall back to where the network has been before is none: squeeze-excitation's own layers are above the others.
    assert "at layer bn4" in locate(30, 60, 28, 20, 22, quantized=True)
    assert "other names" in locate(10)
    assert "cannot be read" in locate_departure([], quantized=True)


def test_a_format_without_a_tap_is_left_out(finished_bundle: Path, photos: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(TAPS, "xml")
    assert measure_layers(finished_bundle, photos).keys() == {"fp32.onnx", "int8.onnx"}


def test_the_command_prints_and_draws_them(bundle: Path, photos: Path):
    result = call("validate", bundle, "--data", photos, "--layers")
    assert result.exit_code == 0
    table = result.stdout[result.stdout.index("Signal to noise") :].splitlines()
    assert [line.split()[0] for line in table[2:7]] == NAMES
    assert table[2].split()[1] == "exact"
    with Image.open(bundle.with_name("bundle.report") / "layers.png") as picture:
        assert picture.format == "PNG"
    assert '"signal_to_noise": null' in call("validate", bundle, "--data", photos, "--layers", "--json").stdout


def test_lines_that_cannot_be_drawn_do_not_stop_the_others(tmp_path: Path):
    nan = float("nan")
    layers = [Layer("a", nan, nan), Layer("b", -30, 0), Layer("embeddings", float("-inf"), 0)]
    draw_layers(
        {"int8.onnx": layers, "fp32.onnx": [Layer("a", float("inf"), 1)]}, "a$x_{$\udcff", tmp_path / "layers.png"
    )
    assert (tmp_path / "layers.png").stat().st_size > 5000


def test_images_that_cannot_be_read_are_passed_over(finished_bundle: Path, photos: Path, tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(ImageError, match="none of the 1 images"):
        measure_layers(finished_bundle, tmp_path)
    (tmp_path / "b.png").write_bytes((photos / "disc" / "00.png").read_bytes())
    assert len(measure_layers(finished_bundle, tmp_path, variant="fp32.onnx")["fp32.onnx"]) == len(NAMES)
    assert "no such" in fails(1, "validate", finished_bundle, "--data", tmp_path / "none", "--layers")
    result = call("validate", finished_bundle, "--data", tmp_path, "--layers", "--variant", "fp32.onnx")
    assert result.stderr.count("left out") == 1
