"""Encoders compared on drawn images."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from byol_edge.evaluate import compare
from byol_edge.evaluate.candidates import RAW_INPUT, Candidate, open_candidates, raw_candidate
from byol_edge.evaluate.compare import compare_candidates, compare_encoders
from byol_edge.evaluate.few_labels import average_precision
from byol_edge.evaluate.raw import embed_raw
from byol_edge.evaluate.scorer import FIGURES
from byol_edge.runtime import Bundle, BundleError, Encoder, EngineError, ImageError, UsageError, find_images
from byol_edge.runtime.fidelity import Vectors, unit_rows
from byol_edge.runtime.images import folder_labels
from byol_edge.runtime.preprocessing import Pixels, Preprocessing, prepare
from byol_edge.runtime.timing import time_calls


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compare, "time_calls", partial(time_calls, seconds=0.05))


def constant(pixels: Pixels) -> Vectors:
    """The same vector for all images."""
    return np.repeat(np.eye(1, 4, dtype=np.float32), len(pixels), axis=0)


def by_mean_color(pixels: Pixels) -> Vectors:
    return unit_rows(pixels.mean((1, 2), dtype=np.float32) + 1)


def test_a_run_and_its_bundle_are_compared_with_raw_pixels(finished_run: Path, finished_bundle: Path, photos: Path):
    result = compare_encoders(["raw", str(finished_run), str(finished_bundle)], photos)
    assert (result.images, result.classes, result.figure, result.judged) == (120, 3, "knn", 120)
    by_name = {each.name: each for each in result.encoders}
    raw, run = by_name["raw pixels"], by_name[str(finished_run)]
    fp32, int8 = (by_name[f"{finished_bundle} {precision}"] for precision in ("fp32", "int8"))
    assert len(by_name) == 4
    assert (raw.image_size, raw.embedding_size, raw.size, raw.timing) == (RAW_INPUT, 768, None, None)
    assert (run.engine, fp32.engine, run.embedding_size) == ("pytorch", Encoder(finished_bundle).engine, 256)
    assert run.accuracy == fp32.accuracy
    assert (run.fidelity, fp32.fidelity) == (None, None)
    assert int8.fidelity is not None
    assert 0.9 < int8.fidelity < 1
    bundle = Bundle.open(finished_bundle)
    assert int8.size == bundle.size(bundle.variants[Encoder(finished_bundle, bundle.best_known("int8")).variant])
    assert int8.size is not None and fp32.size is not None and int8.size < fp32.size
    for each in result.encoders:
        assert each.consistency.lower <= each.consistency.mean <= each.consistency.upper
        assert set(each.accuracy) == {"knn", "probe"}
        assert each is raw or each.timing is not None
    assert result.best.accuracy["knn"].mean == max(each.accuracy["knn"].mean for each in result.encoders)
    assert result.advice.startswith("By 5-NN accuracy on 120 images of known class, ship ")


def test_what_is_level_is_found_by_pairs(photos: Path):
    paths, plain = find_images(photos), Preprocessing(32)
    candidates = [
        Candidate("color", by_mean_color, plain, size=10),
        Candidate("constant", constant, plain, size=10),
        Candidate("again", by_mean_color, Preprocessing(32, fit="squash"), size=8),
    ]
    colors = [by_mean_color(prepare(path, plain)[None])[0] for path in paths]
    for classes, figure in (([str(color.argmax()) for color in colors], "knn"), (None, "consistency")):
        result = compare_candidates(candidates, paths, classes)
        assert result.figure == figure
        by_name = {each.name: each for each in result.encoders}
        gap = by_name["constant"].gap
        assert gap is not None
        values = {
            name: each.accuracy["knn"].mean if classes else each.consistency.mean for name, each in by_name.items()
        }
        assert gap.mean == pytest.approx(values["constant"] - values[result.best.name])
        assert by_name["constant"].accuracy.keys() == ({"knn", "probe"} if classes else set())
        assert not by_name["constant"].is_level
        assert result.level == [by_name["color"], by_name["again"]]


def test_a_handful_of_labels_decides_and_measures_nothing(photos: Path):
    paths, plain = find_images(photos), Preprocessing(32)
    candidates = [Candidate("color", by_mean_color, plain), Candidate("constant", constant, plain)]
    classes = [path.parent.name if path.stem < "05" else None for path in paths]
    result = compare_candidates(candidates, paths, classes)
    assert (result.figure, result.judged, result.classes) == ("few labels", 15, 3)
    assert all(each.accuracy == {} for each in result.encoders)
    color, flat = result.encoders
    known = [row for row, name in enumerate(classes) if name]
    labels = np.unique([paths[row].parent.name for row in known], return_inverse=True)[1]
    vectors = by_mean_color(np.stack([prepare(paths[row], plain) for row in known]))
    precision = average_precision(vectors, labels).mean()
    assert color.deciding.mean == pytest.approx((color.consistency.mean + precision) / 2)
    assert flat.gap is not None
    assert flat.gap.mean == pytest.approx(flat.deciding.mean - color.deciding.mean)
    assert result.advice.startswith("By view consistency and the average precision of 15 images of known class, ship")
    # Where all classes are known, however few the images are, accuracy decides.
    rows = [row for row, name in enumerate(classes) if name]
    result = compare_candidates(candidates, [paths[row] for row in rows], [classes[row] for row in rows])
    assert result.figure == "knn"


def test_figures_may_be_fewer(photos: Path):
    paths = find_images(photos)
    result = compare_candidates(
        [raw_candidate(), Candidate("color", by_mean_color, Preprocessing(16))],
        paths,
        folder_labels(paths, photos),
        figures=[each for each in FIGURES if each.name == "knn"],
    )
    assert {name for each in result.encoders for name in each.accuracy} == {"knn"}
    assert all(each.timing is None for each in result.encoders)


def test_an_image_that_cannot_be_read_is_left_out_for_all(photos: Path, tmp_path: Path):
    images = Path(shutil.copytree(photos / "disc", tmp_path / "images"))
    (images / "05.png").write_bytes(b"x")
    seen: dict[str, list[Vectors]] = {"a": [], "b": []}

    def watch(name: str, pixels: Pixels) -> Vectors:
        vectors = unit_rows(embed_raw(pixels))
        seen[name].append(vectors)
        return vectors

    candidates = [Candidate(name, partial(watch, name), Preprocessing(side)) for name, side in (("a", 16), ("b", 32))]
    result = compare_candidates(candidates, find_images(images))
    assert result.images == result.judged == 39
    (message,) = result.unreadable
    assert "05.png" in message
    assert len(np.concatenate(seen["a"])) == len(np.concatenate(seen["b"])) == 4 * 39


def test_too_few_images_are_refused(photos: Path, tmp_path: Path):
    (tmp_path / "one").mkdir()
    shutil.copy(photos / "disc" / "00.png", tmp_path / "one")
    (tmp_path / "one" / "broken.png").write_bytes(b"x")
    candidates = [raw_candidate(), raw_candidate(Preprocessing(32))]
    with pytest.raises(ImageError, match=r"takes two images .* here 1 of 2 can be; .*broken.png"):
        compare_candidates(candidates, find_images(tmp_path / "one"))


def test_two_images_without_classes_are_compared(photos: Path):
    paths = find_images(photos)[:2]
    result = compare_candidates([raw_candidate(), Candidate("color", by_mean_color, Preprocessing(16))], paths)
    assert (result.images, result.classes) == (2, 0)


def test_vectors_that_are_not_usable_are_named(photos: Path):
    broken = Candidate("broken", lambda pixels: np.full((len(pixels), 4), np.nan, np.float32), Preprocessing(16))
    with pytest.raises(EngineError, match="broken gives vectors with numbers that are not finite"):
        compare_candidates([raw_candidate(), broken], find_images(photos))


def test_what_cannot_be_compared_is_said(
    finished_bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for sources, reason in (
        (["raw"], "raw alone: give something to compare it with"),
        ([], "no source alone"),
        (["raw", "raw"], "raw is given twice"),
        ([str(finished_bundle), f"{finished_bundle}/"], "is given twice"),
        (["raw", "timm:nothing"], "timm has no pretrained weights 'nothing'"),
    ):
        with pytest.raises(UsageError, match=reason):
            compare_encoders(sources, photos)
    (tmp_path / "raw").mkdir()
    with pytest.raises(UsageError, match=r"raw is a name for raw pixels, and a path here; write \./raw"):
        open_candidates(["raw"])


def test_a_bundle_alone_compares_its_precisions(finished_bundle: Path, photos: Path):
    assert len(compare_encoders([str(finished_bundle)], photos).encoders) == 2


def test_of_a_bundle_what_is_here_is_compared(finished_bundle: Path, tmp_path: Path):
    part = Path(shutil.copytree(finished_bundle, tmp_path / "part"))
    for name in ("fp32.onnx", "fp32.xml", "int8.xml"):
        (part / name).unlink()
    (int8,) = open_candidates([str(part)])
    assert (int8.name, int8.original) == (f"{part} int8", None)
    assert int8.engine == Encoder(part, "int8").engine
    (part / "int8.onnx").unlink()
    with pytest.raises(BundleError, match=r"the files of .* are not here"):
        open_candidates([str(part)])


def test_a_model_file_alone_is_compared(finished_bundle: Path):
    (found,) = open_candidates([str(finished_bundle / "int8.onnx")])
    assert found.size == (finished_bundle / "int8.onnx").stat().st_size
