"""Pictures that lie on the device give the views that a cache's give. CPU tensors: the code is the same."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from byol_edge.runtime import ImageError, Preprocessing
from byol_edge.runtime.run import Run
from byol_edge.train import cache as caching
from byol_edge.train import pretrain as pretraining
from byol_edge.train.cache import Cache, open_cache
from byol_edge.train.data import load_batches
from byol_edge.train.device_rendering import DeviceRenderer
from byol_edge.train.pretrain import pretrain
from byol_edge.train.resident import Outlines, ResidentRenderer, copy_pictures, find_room
from byol_edge.train.settings import Settings, resolve
from PIL import Image
from training import CONFIG

CPU, PLENTY = torch.device("cpu"), 2**30
PREPROCESSING = Preprocessing(32)


@pytest.fixture
def paths(photos: Path, tmp_path: Path) -> list[Path]:
    """Images of several shapes, of which one cannot be read."""
    found = [Path(shutil.copy(path, tmp_path / path.name)) for path in sorted(photos.rglob("*.png"))[:31]]
    for number, path in enumerate(found[:8]):
        Image.open(path).resize((60 + 5 * number, 90 - 5 * number)).save(path)
    (tmp_path / "zz.png").write_text("no image")
    return [*found, tmp_path / "zz.png"]


@pytest.fixture
def cache(paths: list[Path], tmp_path: Path) -> Cache:
    return open_cache(tmp_path / "cache", paths, PREPROCESSING, workers=0)


def settings() -> Settings:
    return resolve(dataclasses.replace(CONFIG, epochs=1, augment="device"), 32)


def test_views_are_those_of_the_cache(paths: list[Path], cache: Cache):
    pictures = copy_pictures(cache, CPU, PLENTY)
    assert pictures is not None
    one, other = DeviceRenderer(PREPROCESSING), ResidentRenderer(PREPROCESSING, pictures)
    outlines = Outlines(cache, PREPROCESSING)
    batches = load_batches(paths, settings(), one, 0, cache), load_batches(paths, settings(), other, 0, outlines)
    seen = 0
    for cached, resident in zip(*batches, strict=True):
        assert (cached.rows, cached.errors) == (resident.rows, resident.errors)
        views = (torch.stack(each.finish(batch.views, CPU)) for each, batch in ((one, cached), (other, resident)))
        torch.testing.assert_close(*views, atol=1e-3, rtol=0)
        seen += cached.images
    assert seen == 31


def test_a_cache_that_lacks_readable_images_is_left_alone(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching, "_write_shard", full)
    monkeypatch.setattr(pretraining, "find_room", lambda _: PLENTY)
    pretrain(photos, tmp_path / "run", dataclasses.replace(CONFIG, augment="device"), cache=tmp_path / "cache")
    assert "cannot be filled (No space left on device)" in caplog.text
    assert Run(tmp_path / "run").read_metrics()[-1].unreadable == 0


def test_a_worker_gets_no_pictures(cache: Cache):
    pictures = copy_pictures(cache, CPU, PLENTY)
    assert pictures is not None
    assert len(pickle.dumps(ResidentRenderer(PREPROCESSING, pictures))) < 1000


def test_what_has_no_room_stays_where_it_is(cache: Cache):
    height, width = cache.shapes.max(0).tolist()
    whole = 3 * height * width * 32
    assert copy_pictures(cache, CPU, whole - 1) is None
    assert copy_pictures(cache, CPU, whole) is not None
    assert find_room(CPU) == 0


def test_a_cache_that_lost_a_shard_is_left_alone(cache: Cache):
    cache.shards[0].unlink()
    assert copy_pictures(cache, CPU, PLENTY) is None


def test_an_image_that_can_be_read_only_later_is_left_out(paths: list[Path], cache: Cache):
    outlines = Outlines(cache, PREPROCESSING)
    with pytest.raises(ImageError, match="unreadable image"):
        outlines.read(31)
    shutil.copy(paths[0], paths[31])
    with pytest.raises(ImageError, match="could not be read when the training began"):
        outlines.read(31)


def test_a_run_is_the_same_run(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = dataclasses.replace(CONFIG, augment="device")
    for name, room in (("cached", 0), ("resident", PLENTY)):
        monkeypatch.setattr(pretraining, "find_room", lambda _, room=room: room)
        pretrain(photos, tmp_path / name, config, cache=tmp_path / "cache")
    one, other = (Run(tmp_path / name).read_metrics() for name in ("cached", "resident"))
    assert [each.loss for each in one[1:]] == pytest.approx([each.loss for each in other[1:]], rel=1e-5)
