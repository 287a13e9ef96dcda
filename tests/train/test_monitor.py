import logging
import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from byol_edge.models.objective import Outcome
from byol_edge.runtime.run import Metrics
from byol_edge.train import monitor as monitor_module
from byol_edge.train.evaluation import Figures
from byol_edge.train.monitor import Monitor, advise, describe_duration, describe_epoch, start_metrics

FIGURES = Figures(7.0, 0.5)


def outcome(loss: float, spread: float = 0.5) -> Outcome:
    return Outcome(torch.tensor(loss), {"spread": torch.tensor(spread)})


def test_an_epoch_is_summed_up():
    monitor = Monitor()
    monitor.warn(["a: broken", "b: broken", "a: broken"])
    monitor.add(8, 8, outcome(1.0, 0.2))
    monitor.add(9, 8, outcome(3.0, 0.6))
    monitor.add_moment({"tau": 0.9})
    monitor.add_moment({"tau": 0.99})
    metrics = monitor.summarize(5, 10, 0.1, 2.0, FIGURES)
    assert (metrics.epoch, metrics.step, metrics.loss, metrics.unreadable) == (5, 10, 2.0, 2)
    assert (metrics.images_per_s, metrics.rank, metrics.knn) == (8, 7.0, None)
    assert metrics.diagnostics == pytest.approx({"spread": 0.4, "tau": 0.99})


def test_an_unreadable_image_is_named_once_in_a_run(caplog: pytest.LogCaptureFixture):
    monitor = Monitor()
    for _ in range(3):
        monitor.warn(["a: broken"])
        monitor.start_epoch()
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, "left out: a: broken")
    ]


def test_the_first_loss_that_is_no_number_is_found():
    monitor = Monitor()
    assert monitor.first_bad_step() is None
    for step, loss in enumerate([1.0, 2.0, math.inf, math.nan], start=21):
        monitor.add(step, 8, outcome(loss))
    assert monitor.first_bad_step() == (23, math.inf)
    monitor.start_epoch()
    assert not monitor.has_steps


def test_waiting_for_batches_is_counted_and_working_is_not(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(monitor_module.time, "perf_counter", lambda: now[0])

    def slow_batches() -> Iterator[int]:
        for number in range(3):
            now[0] += 2
            yield number

    monitor = Monitor()
    for step in monitor.watch(slow_batches()):
        now[0] += 6
        monitor.add(step, 8, outcome(1.0))
    metrics = monitor.summarize(1, 3, 0.1, monitor.seconds(), FIGURES)
    assert (metrics.seconds, metrics.waiting) == (24, 0.25)


def test_an_epoch_is_a_line_for_a_person():
    assert describe_epoch(start_metrics(Figures(43.2, 0.3, 0.25))) == "before training: rank 43, kNN 0.250"
    epoch = Metrics(2, 20, 1.5, 0.1, {}, 50.0, 0.4, images_per_s=99.6, waiting=0.25, rendering=0.05)
    assert describe_epoch(epoch) == "epoch 2: loss 1.500, rank 50, 100 images/s, 25% waiting for images"
    on_device = replace(epoch, waiting=0.05, rendering=0.12, memory=2_340_000_000)
    assert describe_epoch(on_device) == "epoch 2: loss 1.500, rank 50, 100 images/s, 12% making views, 2.3 GB"


@pytest.mark.parametrize(
    ("waiting", "workers", "cached", "advice"),
    [
        (0.2, 1, False, None),
        (0.4, 2, False, "40% of the time: 2 processes decode them; there are 4 CPUs"),
        (0.4, 4, False, "40% of the time: keep decoded ones on disk"),
        (0.4, 4, True, "40% of the time, though they are decoded: a faster disk may help"),
    ],
)
def test_the_narrow_place_is_named(
    monkeypatch: pytest.MonkeyPatch, waiting: float, workers: int, cached: bool, advice: str | None
):
    monkeypatch.setattr(monitor_module, "available_cpus", lambda: 4)
    assert advise(Metrics(2, waiting=waiting, seconds=10), workers, cached) is None
    found = advise(Metrics(2, waiting=waiting, seconds=20), workers, cached)
    assert found is None if advice is None else advice in str(found)


def test_the_time_that_views_take_on_the_device_is_counted(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(monitor_module.time, "perf_counter", lambda: now[0])
    monitor = Monitor()
    with monitor.rendering(torch.device("cpu")):
        now[0] += 1
    now[0] += 3
    monitor.add(0, 8, outcome(1.0))
    metrics = monitor.summarize(1, 1, 0.1, monitor.seconds(), FIGURES)
    assert metrics.rendering == 0.25
    assert metrics.memory is not None
    assert 1e7 < metrics.memory < 1e12


def test_how_long_it_will_take_is_said_once_when_it_can_be_known(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    now = [0.0]
    monkeypatch.setattr(monitor_module.time, "perf_counter", lambda: now[0])
    monitor = Monitor()
    now[0] = 60  # starting the workers took a minute
    with caplog.at_level(logging.INFO):
        for step in range(1, 51):
            monitor.tell_duration(step, 1000)
            now[0] += 2
    assert caplog.messages == ["training will take about 33 min more"]


@pytest.mark.parametrize(("seconds", "text"), [(12.4, "12 s"), (100, "2 min"), (7200, "2.0 h")])
def test_a_duration_in_words(seconds: float, text: str):
    assert describe_duration(seconds) == text
