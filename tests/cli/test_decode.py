"""`decode`: what it prints and writes, and what bad input gets."""

import json
import shutil
from pathlib import Path

import pytest
from byol_edge.decoding.results import DECODED
from byol_edge.runtime import load_vectors, save_vectors
from commands import call, fails
from PIL import Image


@pytest.fixture(scope="module")
def decoded(finished_run: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("decoded") / "shapes"
    result = call("decode", finished_run, "--data", photos, "--out", out, "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert f"12 images of {photos} that decoders have not seen, at 32 px; one pass over 108 others" in result.stdout
    for name in ("FP32", "FP32, shortened", "untrained encoder", "best constant image", "the images themselves"):
        assert f"\n{name} " in result.stdout
    assert "best constant image:" in result.stdout.splitlines()[-1]
    return out


def test_a_folder_is_written_and_told(decoded: Path):
    assert {each.name for each in decoded.iterdir()} == set(DECODED.names)
    shown = call("inspect", decoded).stdout
    assert "108 of " in shown
    assert "and 12 held out" in shown
    assert "1 epoch, seed 0" in shown
    told = json.loads(call("inspect", decoded, "--json").stdout)
    assert told == json.loads((decoded / "decoded.json").read_text())


def test_json_is_what_is_written(finished_run: Path, photos: Path, tmp_path: Path):
    result = call("decode", finished_run, "--data", photos / "disc", "-o", tmp_path / "d", "--epochs", 1, "--json")
    assert json.loads(result.stdout) == json.loads((tmp_path / "d" / "decoded.json").read_text())
    assert [row["knn"] for row in json.loads(result.stdout)["rows"]] == [None] * 4


def test_stored_vectors_are_decoded(decoded: Path, finished_run: Path, photos: Path, tmp_path: Path):
    vectors, sheet = tmp_path / "v.npz", tmp_path / "read.png"
    assert call("embed", finished_run, photos, "-o", vectors).exit_code == 0
    assert "64 vectors, decoded" in call("decode", decoded, "--vectors", vectors, "-o", sheet).stdout
    with Image.open(sheet) as picture:
        assert picture.format == "PNG"
    before = sheet.read_bytes()
    assert "--overwrite" in fails(2, "decode", decoded, "--vectors", vectors, "-o", sheet)
    few = load_vectors(vectors)
    save_vectors(tmp_path / "few.npz", type(few)(few.vectors[:3], few.sources[:3], few.model, few.engine))
    again = call("decode", decoded, "--vectors", tmp_path / "few.npz", "-o", sheet, "--overwrite")
    assert "3 vectors" in again.stdout
    assert sheet.read_bytes() != before


def test_vectors_of_another_encoder_are_refused(decoded: Path, finished_bundle: Path, photos: Path, tmp_path: Path):
    vectors = tmp_path / "v.npz"
    assert call("embed", finished_bundle, photos / "disc", "-o", vectors).exit_code == 0
    line = fails(1, "decode", decoded, "--vectors", vectors, "-o", tmp_path / "s.png")
    assert f"{vectors}: its vectors are by {load_vectors(vectors).model}, this decoder is of " in line
    assert not (tmp_path / "s.png").exists()


def test_bad_input_is_one_line(decoded: Path, finished_run: Path, photos: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "one").mkdir()
    shutil.copy(photos / "disc" / "07.png", tmp_path / "one")
    (tmp_path / "v.npz").write_bytes(b"x")
    out, taken = ("-o", tmp_path / "out"), ("-o", decoded)
    for code, arguments, reason in (
        (2, (finished_run, *out), "give --data DIR"),
        (
            2,
            (finished_run, "--data", photos, *taken),
            "exists already; choose another place, or replace it: --overwrite",
        ),
        (2, (finished_run, "--data", photos, *out, "--epochs", 0), "--epochs 0: has to be 1 or more"),
        (2, (finished_run, "--data", photos, *out, "--variant", "int8"), "--variant int8: "),
        (1, (finished_run, "--data", tmp_path / "gone", *out), "gone: no such folder"),
        (1, (finished_run, "--data", tmp_path / "empty", *out), "no images in it or below it"),
        (1, (finished_run, "--data", tmp_path / "one", *out), "takes 20 images or more, here 1 can be read"),
        (1, (tmp_path / "gone", "--data", photos, *out), "gone: no run, no bundle, no checkpoint"),
        (2, (tmp_path / "v.npz", "--data", photos, *out), "v.npz is a file of vectors: give the encoder"),
        (
            2,
            (decoded, "--vectors", tmp_path / "v.npz", "--data", photos, *out),
            "nothing goes with it but --out and --overwrite",
        ),
        (2, (decoded, "--vectors", tmp_path / "v.npz", *out, "--epochs", 3), "nothing goes with it"),
        (2, (decoded, "--data", photos, *out), "is what this wrote of an encoder: it decodes --vectors FILE"),
        (2, (decoded, "--vectors", tmp_path / "v.npz", *out), "the picture is written as .png"),
        (1, (decoded, "--vectors", tmp_path / "v.npz", "-o", tmp_path / "s.png"), "not a file of vectors"),
        (1, (finished_run, "--vectors", tmp_path / "v.npz", "-o", tmp_path / "s.png"), "holds no decoder.safetensors"),
    ):
        assert reason in fails(code, "decode", *arguments)
    assert not (tmp_path / "out").exists()
