"""What a teacher makes of a run's images, from wherever it comes, and what becomes of it in a run."""

import dataclasses
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from byol_edge.export.config import ExportConfig
from byol_edge.export.source import load_source
from byol_edge.models.byol import BYOLConfig
from byol_edge.models.distillation import DistillationConfig
from byol_edge.models.encoders import Choice, open_encoder
from byol_edge.models.network import embed_pixels
from byol_edge.runtime import Encoder, find_images
from byol_edge.runtime.errors import RunError, UsageError
from byol_edge.runtime.files import whole_file
from byol_edge.runtime.run import ENCODER, Run
from byol_edge.runtime.vectors import VectorFile, save_vectors
from byol_edge.train import teacher
from byol_edge.train.pretrain import pretrain
from byol_edge.train.teacher import find_targets
from small_run import CONFIG
from torch import device

CPU = device("cpu")


def test_a_run_a_bundle_and_its_file_of_vectors_teach_the_same(
    photos: Path, finished_run: Path, finished_bundle: Path, tmp_path: Path
):
    paths = find_images(photos)
    of_run = find_targets(str(finished_run), paths, Choice(), CPU)
    of_bundle = find_targets(str(finished_bundle / "fp32.onnx"), paths, Choice(), CPU)
    assert of_run.vectors.shape == (len(paths), 256)
    assert of_run.vectors.dtype == np.float16
    np.testing.assert_allclose(of_run.vectors, of_bundle.vectors, atol=1e-3)
    with Encoder(finished_bundle / "fp32.onnx") as encoder:
        vectors = encoder.embed([str(path) for path in paths[::-1]])
        # Other names for the same files, in another order.
        content = VectorFile(2 * vectors, [str(path.parent / "." / path.name) for path in paths[::-1]], encoder.id, "e")
    save_vectors(tmp_path / "v.npz", content)
    of_file = find_targets(str(tmp_path / "v.npz"), paths, Choice(), CPU)
    assert of_file.model == of_bundle.model
    np.testing.assert_allclose(of_file.vectors, of_bundle.vectors, atol=1e-3)


def test_a_teacher_of_more_images_is_traced_and_gives_the_same(
    photos: Path, finished_run: Path, monkeypatch: pytest.MonkeyPatch
):
    paths = find_images(photos)
    eager = find_targets(str(finished_run), paths, Choice(), CPU)
    monkeypatch.setattr(teacher, "LEAST_TO_TRACE", 10)
    monkeypatch.setattr(type(open_encoder(str(finished_run))), "run", None)  # not to be called any more
    traced = find_targets(str(finished_run), paths, Choice(), CPU)
    assert traced.model == eager.model
    np.testing.assert_allclose(traced.vectors, eager.vectors, atol=1e-3)


def test_a_file_of_vectors_has_to_hold_the_images(photos: Path, tmp_path: Path):
    paths = find_images(photos)
    vectors = np.eye(len(paths), 8, dtype=np.float32) + 1
    save_vectors(tmp_path / "few.npz", VectorFile(vectors[3:], [str(path) for path in paths[3:]], "m", "e"))
    with pytest.raises(RunError, match=r"few\.npz: holds no vector of .*00\.png, nor of 2 more of 120 images"):
        find_targets(str(tmp_path / "few.npz"), paths, Choice(), CPU)
    for value in (np.nan, 0.0):
        vectors[5] = value
        save_vectors(tmp_path / "bad.npz", VectorFile(vectors, [str(path) for path in paths], "m", "e"))
        with pytest.raises(UsageError, match=r"bad\.npz holds vectors that are zero, or no finite numbers"):
            find_targets(str(tmp_path / "bad.npz"), paths, Choice(), CPU)


def test_an_image_that_none_can_read_has_no_vector(photos: Path, finished_run: Path, tmp_path: Path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    paths = [*find_images(photos)[:3], broken]
    found = find_targets(str(finished_run), paths, Choice(), CPU).vectors
    assert np.isnan(found[3]).all() and np.isfinite(found[:3]).all()
    save_vectors(
        tmp_path / "v.npz",
        VectorFile(found[:3].astype(np.float32), [str(path) for path in paths[:3]], "m", "e"),
    )
    assert np.isnan(find_targets(str(tmp_path / "v.npz"), paths, Choice(), CPU).vectors[3]).all()


def test_a_student_is_distilled_and_its_run_goes_on_without_the_teacher(
    photos: Path, finished_run: Path, tmp_path: Path
):
    config = dataclasses.replace(CONFIG, teacher=str(finished_run), objective=DistillationConfig(32))
    out, other = tmp_path / "student", tmp_path / "teacher"
    shutil.copytree(finished_run, other)
    config = dataclasses.replace(config, teacher=str(other), epochs=1)
    pretrain(photos, out, config)
    trained = Run(out).read_encoder()
    assert (trained.provenance.objective, trained.provenance.teacher) == ("distillation", str(other))
    assert trained.spec.embedding_size == 32  # components, since its weights were random
    assert Run(out).read_teacher(108) is not None  # a tenth of the 120 is held out
    shutil.rmtree(other)
    pretrain(None, out, dataclasses.replace(config, epochs=2), resume=True)
    assert [each.epoch for each in Run(out).read_metrics()] == [0, 1, 2]
    first, second = (each.loss for each in Run(out).read_metrics()[1:])
    assert first is not None and second is not None and second < first


def test_kept_space_is_the_teachers(photos: Path, finished_run: Path, tmp_path: Path):
    objective = DistillationConfig(64, keep_space=True)
    config = dataclasses.replace(CONFIG, epochs=8, learning_rate=1e-2, teacher=str(finished_run), objective=objective)
    pretrain(photos, tmp_path / "student", config)
    student, original = open_encoder(str(tmp_path / "student")), open_encoder(str(finished_run))
    assert student.embedding_size == original.embedding_size
    paths = [str(path) for path in find_images(photos)]
    ours, theirs = (next(each.stream(paths, 200)).vectors for each in (student, original))
    own = (ours * theirs).sum(1).mean()
    assert own > (ours @ theirs.T).mean() + 0.02  # nearer to its own image's vector than to those of others
    assert own > 0.7


def test_a_student_ends_in_a_layer_that_its_weights_keep(
    photos: Path, finished_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    config = dataclasses.replace(CONFIG, epochs=1, teacher=str(finished_run), objective=DistillationConfig(24))
    pretrain(photos, tmp_path / "student", config)
    run, file = open_encoder(str(tmp_path / "student")), str(tmp_path / "student" / ENCODER)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    assert run.run(pixels).shape == (3, 24)
    np.testing.assert_allclose(open_encoder(file).run(pixels), run.run(pixels), atol=1e-5)
    exported = load_source(file, ExportConfig(calibration=photos))
    np.testing.assert_allclose(embed_pixels(exported.network, pixels), run.run(pixels), atol=1e-5)
    with caplog.at_level(logging.INFO):
        pretrain(photos, tmp_path / "adapted", dataclasses.replace(CONFIG, epochs=1, init=str(tmp_path / "student")))
    assert "its last layer is left out; vectors are its backbone's" in caplog.text
    assert open_encoder(str(tmp_path / "adapted")).run(pixels).shape == (3, 256)


def test_a_full_disk_costs_the_cache_and_not_the_run(
    photos: Path, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def full(self: Run, content: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Run, "save_teacher", full)
    config = dataclasses.replace(CONFIG, epochs=1, teacher=str(finished_run), objective=DistillationConfig(16))
    with caplog.at_level(logging.WARNING):
        pretrain(photos, tmp_path / "run", config)
    assert "the teacher's vectors are not kept (No space left on device): resuming computes them again" in caplog.text
    assert Run(tmp_path / "run").read_teacher(108) is None


def test_a_student_larger_than_its_teacher_is_said_to_be_one(
    photos: Path, finished_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    config = dataclasses.replace(
        CONFIG, backbone="resnet18", epochs=1, teacher=str(finished_run), objective=DistillationConfig(16)
    )
    with caplog.at_level(logging.INFO):
        pretrain(photos, tmp_path / "run", config)
    assert "the student is larger than its teacher: 11.2 and 0.4 million parameters" in caplog.text


def test_a_damaged_cache_is_computed_again(finished_run: Path, tmp_path: Path):
    run = Run(tmp_path)
    assert run.read_teacher(3) is None
    with whole_file(tmp_path / "teacher.npz") as part:
        part.write_bytes(b"junk")
    assert run.read_teacher(3) is None


def test_a_teacher_and_byol_do_not_go_together(photos: Path, finished_run: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="byol alone has no teacher; leave it out, or take guided-byol"):
        pretrain(photos, tmp_path / "r", dataclasses.replace(CONFIG, teacher=str(finished_run), objective=BYOLConfig()))
    with pytest.raises(UsageError, match="distillation learns from a teacher: give teacher"):
        pretrain(photos, tmp_path / "r", dataclasses.replace(CONFIG, objective=DistillationConfig()))
