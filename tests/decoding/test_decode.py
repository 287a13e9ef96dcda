"""What can be read back out of vectors: rows, figures and files, on drawn images."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from byol_edge.decoding import decode as module
from byol_edge.decoding import images as decoding_images
from byol_edge.decoding.decode import decode
from byol_edge.decoding.images import embed_folder, open_subject
from byol_edge.decoding.results import CONSTANT, DECODED, UNTRAINED, Decoding
from byol_edge.decoding.sheets import find_groups, interpolate
from byol_edge.runtime import Bundle, Encoder, ImageError, OutputExistsError, UsageError
from byol_edge.runtime.fidelity import unit_rows
from PIL import Image


@pytest.fixture(scope="module")
def decoded(finished_bundle: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Decoding]:
    out = tmp_path_factory.mktemp("decoded") / "shapes"
    return out, decode(str(finished_bundle), photos, out, epochs=8)


def test_each_precision_the_short_one_the_untrained_and_the_constant(
    decoded: tuple[Path, Decoding], finished_bundle: Path
):
    _, result = decoded
    subject = Encoder(finished_bundle)
    other = "fp32" if subject.variant.startswith("int8") else "int8"
    names = [each.name for each in result.rows]
    assert names[0] == subject.variant
    assert names[1].startswith(other)
    assert names[2:] == [f"{subject.variant}, shortened", UNTRAINED, CONSTANT]
    assert [each.numbers for each in result.rows] == [256, 256, 32, 256, 0]
    assert (result.model, result.engine) == (subject.id, subject.engine)
    assert (result.side, result.images, result.held_out, result.classes) == (32, 108, 12, 3)


def test_figures_are_of_what_was_decoded(decoded: tuple[Path, Decoding]):
    _, result = decoded
    first, *_, constant = result.rows
    assert constant.gain.mean == constant.explained == 0
    assert first.gain.mean == pytest.approx(first.psnr.mean - constant.psnr.mean)
    assert first.gain.lower > 0.5
    assert 0 < first.explained < 1
    assert 0 < first.ssim.mean < 1
    assert result.lead is not None
    untrained = result.rows[3]
    assert result.lead.mean == pytest.approx(first.psnr.mean - untrained.psnr.mean)
    assert result.knn is not None
    assert all(each.knn is not None and 0 <= each.knn.mean <= 1 for each in result.rows)
    # All its copies are of one class.
    assert constant.knn is not None and constant.knn.mean < 1


def test_the_folder_holds_figures_pictures_and_the_decoder(decoded: tuple[Path, Decoding]):
    out, result = decoded
    assert sorted(each.name for each in out.iterdir()) == sorted(DECODED.names)
    assert json.loads((out / "decoded.json").read_text()) == json.loads(json.dumps(result.to_json()))
    for name in ("reconstructions.png", "steps.png", "means.png"):
        with Image.open(out / name) as picture:
            assert picture.format == "PNG"
            assert picture.width > 500


def test_the_same_seed_gives_the_same_bytes(finished_bundle: Path, photos: Path, tmp_path: Path):
    first, again, other = (tmp_path / name for name in ("first", "again", "other"))
    for out, seed in ((first, 0), (again, 0), (other, 1)):
        decode(str(finished_bundle), photos / "disc", out, epochs=1, seed=seed)
    for name in DECODED.names:
        assert (first / name).read_bytes() == (again / name).read_bytes()
    assert (first / "decoder.safetensors").read_bytes() != (other / "decoder.safetensors").read_bytes()


def test_a_run_and_a_model_file_are_decoded_too(
    finished_run: Path, finished_bundle: Path, photos: Path, tmp_path: Path
):
    result = decode(str(finished_run), photos / "disc", tmp_path / "run", epochs=1)
    assert [each.name for each in result.rows] == ["FP32", "FP32, shortened", UNTRAINED, CONSTANT]
    assert (result.engine, result.classes, result.knn) == ("pytorch", 0, None)
    result = decode(str(finished_bundle / "fp32.onnx"), photos / "disc", tmp_path / "file", epochs=1)
    assert [each.name for each in result.rows] == ["fp32.onnx", "fp32.onnx, shortened", CONSTANT]
    assert result.lead is None
    variant = decode(str(finished_bundle), photos / "disc", tmp_path / "variant", variant="fp32.onnx", epochs=1)
    assert variant.model == result.model


def test_images_are_split_once_and_vectors_are_theirs(finished_bundle: Path, photos: Path):
    subject = open_subject(str(finished_bundle), "auto")
    images = embed_folder(subject, photos, seed=3)
    assert sorted([*images.train, *images.held]) == list(range(120))
    assert images.labels is not None
    assert [images.classes[label] for label in images.labels] == [path.parent.name for path in images.paths]
    row = images.held[0]
    assert np.allclose(images.vectors[subject.name][row], Encoder(finished_bundle).embed(images.paths[row]), atol=2e-3)
    assert np.allclose(np.linalg.norm(images.vectors[f"{subject.name}, shortened"], axis=1), 1, atol=1e-5)


def test_of_many_images_some_are_drawn(
    finished_bundle: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(decoding_images, "MOST", 30)
    with caplog.at_level("INFO"):
        images = embed_folder(open_subject(str(finished_bundle), "auto"), photos, seed=0)
    assert len(images.paths) == 30
    assert "30 of its images are drawn" in caplog.text


def test_images_that_are_all_alike_are_no_error(finished_bundle: Path, tmp_path: Path):
    for number in range(24):
        (tmp_path / "flat").mkdir(exist_ok=True)
        Image.new("RGB", (40, 40), "teal").save(tmp_path / "flat" / f"{number}.png")
    result = decode(str(finished_bundle), tmp_path / "flat", tmp_path / "out", epochs=1)
    assert all(np.isfinite([each.psnr.mean, each.ssim.mean, each.explained]).all() for each in result.rows)
    assert "no sure sign that this decoder reads anything" in result.conclusion


def test_unreadable_images_are_left_out_and_too_few_refused(finished_bundle: Path, photos: Path, tmp_path: Path):
    folder = tmp_path / "images"
    shutil.copytree(photos / "disc", folder)
    (folder / "broken.png").write_bytes(b"x")
    result = decode(str(finished_bundle), folder, tmp_path / "out", epochs=1)
    assert (result.images, result.held_out, len(result.unreadable)) == (36, 4, 1)
    for image in sorted(folder.iterdir())[:21]:
        image.unlink()
    with pytest.raises(ImageError, match=r"takes 20 images or more, here 19 can be read; the first .*broken.png"):
        decode(str(finished_bundle), folder, tmp_path / "few")
    assert not (tmp_path / "few").exists()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["images", "out"]


def test_what_is_there_is_refused_before_any_work(
    finished_bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "open_subject", lambda *_: pytest.fail("opened"))
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(OutputExistsError, match="is not a decoding"):
        decode(str(finished_bundle), photos, tmp_path, overwrite=True)
    with pytest.raises(UsageError, match="epochs=0: has to be 1 or more"):
        decode(str(finished_bundle), photos, tmp_path / "new", epochs=0)
    for seed in (-1, 2**63):
        with pytest.raises(UsageError, match=f"seed={seed}: has to be 0 or more"):
            decode(str(finished_bundle), photos, tmp_path / "new", seed=seed)


def test_a_stop_leaves_nothing(finished_bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "draw_decoded", stop)
    with pytest.raises(KeyboardInterrupt):
        decode(str(finished_bundle), photos / "disc", tmp_path / "out", epochs=1)
    assert list(tmp_path.iterdir()) == []


def test_other_sources_are_named(photos: Path, finished_run: Path, tmp_path: Path):
    for source, variant, reason in (
        ("v.npz", "auto", "v.npz is a file of vectors"),
        (str(finished_run), "int8", "is no bundle"),
    ):
        with pytest.raises(UsageError, match=reason):
            decode(source, photos, tmp_path / "out", variant=variant)


def test_a_users_own_module_has_no_untrained_twin(bundle: Path):
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["network"] = {"module": "Mine"}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert Bundle.open(bundle).module == "Mine"
    assert UNTRAINED not in open_subject(str(bundle), "auto").embed


def test_steps_are_equal_angles(random: np.random.Generator):
    first, last = unit_rows(random.normal(size=(2, 5)).astype(np.float32))
    between = interpolate(first, last, np.linspace(0, 1, 5))
    assert np.allclose(between[[0, -1]], [first, last], atol=1e-6)
    angles = np.arccos((between[1:] * between[:-1]).sum(1))
    assert angles == pytest.approx(np.full(4, np.arccos(first @ last) / 4), abs=1e-3)
    assert np.isfinite(interpolate(first, first, np.linspace(0, 1, 5))).all()
    assert np.isfinite(interpolate(first, -first, np.linspace(0, 1, 4))).all()


def test_groups_are_of_near_vectors():
    vectors = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    groups = find_groups(vectors)
    assert len(set(groups)) == 3
    assert all(len(set(groups[at : at + 10])) == 1 for at in (0, 10, 20))
