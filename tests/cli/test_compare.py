"""`compare`: what it prints, and what bad input gets."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from byol_edge.evaluate import compare
from byol_edge.runtime.timing import time_calls
from commands import call, fails


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compare, "time_calls", partial(time_calls, seconds=0.05))


def test_a_table_and_a_sentence(finished_run: Path, finished_bundle: Path, photos: Path, tmp_path: Path):
    images = Path(shutil.copytree(photos, tmp_path / "images"))
    (images / "disc" / "00.png").write_bytes(b"x")
    result = call("compare", "raw", finished_run, finished_bundle, "--data", images)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"119 images of {images}, 3 classes; 95 % intervals:"
    titles = lines[1].split()
    assert titles == ["px", "views", "5-NN", "probe", "to", "best", "D", "MB", "ms", "cosine"]
    named = [line for line in lines if line.startswith((str(finished_run), f"{finished_bundle} ", "raw pixels"))]
    assert len(named) == 4
    assert sum(" best " in line for line in named) == 1
    assert "1 image could not be read and left out for all." in lines
    assert lines[-1].startswith("By 5-NN accuracy on 119 images of known class, ship ")
    assert "00.png" in result.stderr


def test_without_classes_there_are_no_accuracies(finished_run: Path, photos: Path):
    result = call("compare", "raw", finished_run, "--data", photos / "disc")
    assert result.exit_code == 0, result.output
    assert "no classes known" in result.stdout
    assert "5-NN" not in result.stdout
    assert "By view consistency on 40 images, since their classes are not known, ship" in result.stdout


def test_classes_may_come_from_a_file(finished_run: Path, photos: Path, tmp_path: Path):
    rows = [f"{number:02}.png,{number % 2}" for number in range(20)]
    (tmp_path / "labels.csv").write_text("image,label\n" + "\n".join(rows))
    command = ("compare", "raw", finished_run, "--data", photos / "disc", "--labels", tmp_path / "labels.csv", "--json")
    told = json.loads(call(*command).stdout)
    assert (told["images"], told["judged"], told["classes"], told["figure"]) == (40, 20, 2, "knn")
    assert {each["name"] for each in told["encoders"]} == {"raw pixels", str(finished_run)}
    assert told["advice"].startswith("By 5-NN accuracy on 20 images")


def test_a_handful_of_labels_is_not_an_accuracy(finished_run: Path, photos: Path, tmp_path: Path):
    rows = [f"{number:02}.png,{number % 2}" for number in range(10)]
    (tmp_path / "labels.csv").write_text("image,label\n" + "\n".join(rows))
    result = call("compare", "raw", finished_run, "--data", photos / "disc", "--labels", tmp_path / "labels.csv")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[1].split()[:5] == ["px", "views", "with", "labels", "to"]
    assert "5-NN" not in result.stdout
    assert "average precision of 10 images of known class" in " ".join(result.stdout.split())


def test_bad_input_is_one_line(finished_run: Path, photos: Path, tmp_path: Path):
    (tmp_path / "one").mkdir()
    shutil.copy(photos / "disc" / "00.png", tmp_path / "one")
    for code, arguments, reason in (
        (2, ("raw", "--data", photos), "raw alone: give something to compare it with"),
        (2, ("raw", "raw", "--data", photos), "raw is given twice"),
        (2, ("--data", photos), "Missing argument 'SOURCE...'"),
        (2, ("raw", finished_run), "Missing option '--data'"),
        (1, ("raw", finished_run, "--data", tmp_path / "gone"), "no such folder"),
        (1, ("raw", finished_run, "--data", tmp_path / "one"), "it takes two images to compare encoders"),
        (1, ("raw", tmp_path / "gone", "--data", photos), "no run, no bundle, no checkpoint"),
        (1, ("raw", finished_run, "--data", photos, "--labels", tmp_path / "gone.csv"), "gone.csv: cannot be read"),
    ):
        assert reason in fails(code, "compare", *arguments)
