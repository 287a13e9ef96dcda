import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from byol_edge.runtime import Preprocessing, find_images
from byol_edge.runtime.preprocessing import Pixels
from byol_edge.train import data
from byol_edge.train.config import TrainConfig
from byol_edge.train.data import NICENESS, BatchSampler, Draw, load_batches
from byol_edge.train.rendering import Pair, WorkerRenderer
from byol_edge.train.settings import Settings, resolve

RENDERER = WorkerRenderer(Preprocessing(24))


def settings(images: int = 120, **changes: object) -> Settings:
    config = {"backbone": "conv4", "image_size": 24, "epochs": 2, "batch_size": 16, "workers": 0, **changes}
    return resolve(TrainConfig(**config), images)


def sampled(images: int, first_epoch: int, **changes: object) -> list[list[Draw]]:
    return list(BatchSampler(settings(images, **changes).plan, 0, first_epoch))


def test_an_epoch_is_the_whole_set_in_a_fresh_order():
    batches = sampled(40, 0, batch_size=10)
    assert [batch[0].epoch for batch in batches] == [0] * 4 + [1] * 4
    first, second = ([draw.index for batch in part for draw in batch] for part in (batches[:4], batches[4:]))
    assert sorted(first) == sorted(second) == list(range(40))
    assert first != second


def test_a_short_last_batch_is_left_out():
    assert [len(batch) for batch in sampled(47, 1, batch_size=16)] == [16, 16]


def test_parts_of_a_batch_are_the_same_images_in_the_same_order():
    whole, parts = (sampled(47, 0, batch_size=16, accumulate=each) for each in (1, 4))
    assert [len(part) for part in parts] == [4] * 16
    assert [draw for part in parts for draw in part] == [draw for batch in whole for draw in batch]


def test_a_later_start_gives_the_batches_that_were_left():
    every, rest = (sampled(40, first, batch_size=10, epochs=3) for first in (0, 2))
    assert rest == every[8:]


def test_batches_hold_two_views_of_each_image(photos: Path):
    batch = next(iter(load_batches(find_images(photos), settings(), RENDERER, 0)))
    first, second = RENDERER.finish(batch.views, torch.device("cpu"))
    assert batch.images == 16
    assert first.shape == second.shape == (16, 24, 24, 3)
    assert first.dtype == torch.uint8
    assert not torch.equal(first, second)


def test_workers_change_nothing(photos: Path):
    paths = find_images(photos)
    alone, with_workers = (list(load_batches(paths, settings(workers=workers), RENDERER, 0)) for workers in (0, 2))
    assert len(alone) == len(with_workers) == 14
    for one, other in zip(alone, with_workers, strict=True):
        assert torch.equal(one.views[0], other.views[0])
        assert torch.equal(one.views[1], other.views[1])


def test_loading_draws_nothing_from_the_global_generator(photos: Path):
    state = torch.get_rng_state()
    list(load_batches(find_images(photos), settings(epochs=1, workers=2), RENDERER, 0))
    assert torch.equal(torch.get_rng_state(), state)


def test_unreadable_images_are_left_out_and_said(photos: Path, tmp_path: Path):
    (tmp_path / "broken.jpg").write_bytes(b"x")
    paths = [*find_images(photos)[:19], tmp_path / "broken.jpg"]
    (batch,) = load_batches(paths, settings(20, batch_size=20, epochs=1), RENDERER, 0)
    assert batch.images == 19
    assert [message.split(":")[0] for message in batch.errors] == [str(tmp_path / "broken.jpg")]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_of_nothing_readable_is_empty(tmp_path: Path, workers: int):
    paths = []
    for number in range(4):
        paths.append(tmp_path / f"{number}.png")
        paths[-1].write_bytes(np.random.default_rng(number).bytes(50))
    (batch,) = load_batches(paths, settings(4, batch_size=4, epochs=1, workers=workers), RENDERER, 0)
    assert (batch.images, len(batch.errors)) == (0, 4)


def test_a_workers_threads_print_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """One that hands over a tensor as the parent is stopped, by Ctrl-C, say."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    data._start_worker(0)
    sys.excepthook(EOFError, EOFError(), None)
    assert capsys.readouterr().err == ""


class Niceness(WorkerRenderer):
    """Tells how nice the worker is instead of making views."""

    def load(self, row: int, pixels: Pixels, views: Pair) -> Any:
        return os.nice(0)

    def collate(self, loaded: list[Any]) -> Any:
        return loaded


def test_workers_leave_a_cpu_to_the_network(photos: Path):
    before = os.nice(0)
    loading = settings(epochs=1, workers=1)
    batch = next(load_batches(find_images(photos), loading, Niceness(loading.preprocessing), 0))
    assert set(batch.views) == {before + NICENESS}
    assert os.nice(0) == before
