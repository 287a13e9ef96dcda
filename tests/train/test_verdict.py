import pytest
from byol_edge.train.monitor import Metrics
from byol_edge.train.recipe import TrainConfig, resolve
from byol_edge.train.verdict import is_collapsing, judge, likely_cause

SETTINGS = resolve(TrainConfig(image_size=32, batch_size=64), 1000)


def line(epoch: int, rank: float = 140, std: float = 0.65, spread: float = 0.8, knn: float | None = None) -> Metrics:
    return Metrics(epoch, epoch * 10, 1.0, 0.9, 0.1, spread, rank, std, knn, 50.0, 0.0, 1.0, 0)


UNTRAINED = line(0, rank=100, std=0.33, knn=0.41)


def verdict(*history: Metrics) -> str:
    return str(judge(history, SETTINGS, 512, queries=300))


def test_a_healthy_run():
    assert (
        verdict(UNTRAINED, line(1, 143, knn=0.86))
        == "healthy: rank 143 of 512, untrained 100; kNN 0.860, untrained 0.410"
    )


def test_a_run_without_labels_is_judged_by_its_rank():
    untrained = line(0, rank=100, std=0.33)
    assert verdict(untrained, line(1)).startswith(
        "healthy: rank 140 of 512, untrained 100; no class folders or --labels"
    )
    assert verdict(untrained, line(1, rank=60)).startswith("doubtful: rank 60")


def test_a_gain_within_the_interval_is_doubtful():
    assert verdict(UNTRAINED, line(1, knn=0.44)).startswith("doubtful: ")
    assert "more epochs or images" in verdict(UNTRAINED, line(1, knn=0.44))
    assert verdict(UNTRAINED, line(1, knn=0.55)).startswith("healthy: ")


def test_the_last_measured_knn_counts():
    assert "kNN 0.860" in verdict(UNTRAINED, line(1, knn=0.5), line(2, knn=0.86), line(3))


@pytest.mark.parametrize(
    "epochs",
    [
        # As measured: conv4 on CIFAR-10 with AdamW at 0.5; and without a predictor.
        [(21.7, 0.462, 0.287), (7.5, 0.139, 0.316), (8.9, 0.173, 0.301), (9.1, 0.168, 0.329)],
        [(144, 0.651, 0.159), (139, 0.66, 0.136), (136, 0.666, 0.115)],
    ],
)
def test_a_collapse_is_seen_and_stays_seen(epochs: list[tuple[float, float, float]]):
    history = [UNTRAINED, *(line(number, *each) for number, each in enumerate(epochs, start=1))]
    assert is_collapsing(history, warmup_epochs=0)
    assert not is_collapsing(history[:-1], warmup_epochs=0)
    assert not is_collapsing(history, warmup_epochs=len(epochs) - 1)
    assert verdict(*history).startswith("collapsed: ")


def test_what_is_no_collapse():
    # A low rank of well spread embeddings: few kinds of image.
    assert not is_collapsing([UNTRAINED, *(line(epoch, rank=40) for epoch in (1, 2, 3, 4))], 0)
    # A dip that it recovers from.
    assert not is_collapsing([UNTRAINED, line(1, 70, 0.2), line(2, 80, 0.25), line(3, 90, 0.3)], 0)
    assert not is_collapsing([UNTRAINED], 0)


@pytest.mark.parametrize(
    ("config", "cause"),
    [
        (
            TrainConfig(batch_size=64, learning_rate=0.5),
            r"1000\.0 times the usual one of adamw: --learning-rate 0\.0005",
        ),
        (TrainConfig(batch_size=64, accumulate=4), "batch norm sees 16 images at a time.*--batch-size 64"),
        (TrainConfig(batch_size=64), r"too high for resnet18.*--learning-rate 0\.00017, or --warmup-epochs 20"),
    ],
)
def test_the_likely_cause(config: TrainConfig, cause: str):
    import re

    assert re.search(cause, likely_cause(resolve(config, 1000)))
