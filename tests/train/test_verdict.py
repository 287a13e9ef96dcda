import dataclasses
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from byol_edge.models.autoencoder import AutoencoderConfig
from byol_edge.models.byol import BYOLConfig
from byol_edge.models.distillation import DistillationConfig
from byol_edge.models.infonce import InfoNCEConfig
from byol_edge.models.objective import Diagnostic
from byol_edge.runtime.errors import in_python, name_arguments
from byol_edge.runtime.interval import Interval
from byol_edge.runtime.run import Metrics
from byol_edge.train.config import TrainConfig
from byol_edge.train.evaluation import Figures
from byol_edge.train.selection import Evidence
from byol_edge.train.settings import Settings, resolve
from byol_edge.train.verdict import is_collapsing, judge, likely_cause

SETTINGS = resolve(TrainConfig(image_size=32, batch_size=64), 1000)


def line(
    epoch: int,
    rank: float = 140,
    std: float = 0.65,
    spread: float = 0.8,
    knn: float | None = None,
    gain: tuple[float, float] = (0.02, 0.08),
) -> Metrics:
    gains = None if knn is None else Interval(sum(gain) / 2, *gain)
    diagnostics = {"projection_std": spread, "tau": 0.9}
    return Metrics(epoch, epoch * 10, 1.0, 0.1, diagnostics, rank, std, knn, gains)


UNTRAINED = line(0, rank=100, std=0.33, knn=0.41)


def settings(warmup_epochs: float) -> Settings:
    return dataclasses.replace(SETTINGS, plan=dataclasses.replace(SETTINGS.plan, warmup_epochs=warmup_epochs))


def verdict(*history: Metrics) -> str:
    return str(judge(history, SETTINGS, 512))


def test_a_healthy_run():
    assert (
        verdict(UNTRAINED, line(1, 143, knn=0.86))
        == "healthy: rank 143 of 512, untrained 100; kNN 0.860, untrained 0.410"
    )


def test_a_run_without_labels_is_judged_by_its_rank():
    untrained = line(0, rank=100, std=0.33)
    assert verdict(untrained, line(1)).startswith("healthy: rank 140 of 512, untrained 100; accuracy was not measured")
    assert verdict(untrained, line(1, rank=60)).startswith("doubtful: rank 60")


def test_infonce_says_when_all_images_have_become_alike():
    diagnostics = {"projection_std": 0.05, "found": 0.02, "tau": 0.9}
    own = resolve(TrainConfig(image_size=32, batch_size=64, objective=InfoNCEConfig()), 1000)
    found = judge([UNTRAINED, dataclasses.replace(line(1), diagnostics=diagnostics)], own, 512)
    assert found.kind == "collapsed"
    assert "deviation of the projections 0.05" in found.message


def test_a_young_autoencoder_has_not_collapsed():
    """It decodes worse than the mean image for some epochs; of its embeddings, which are decoded, all is well."""
    own = resolve(TrainConfig(image_size=32, batch_size=64, warmup_epochs=0, objective=AutoencoderConfig()), 1000)
    lines = [dataclasses.replace(line(n, 140 - n), diagnostics={"explained": -0.06}) for n in (1, 2, 3)]
    assert not is_collapsing([UNTRAINED, *lines], own)
    assert judge([UNTRAINED, *lines], own, 512).kind == "healthy"
    alike = [dataclasses.replace(each, rank=20 - each.epoch, embedding_std=0.1) for each in lines]
    assert is_collapsing([UNTRAINED, *alike], own)


def test_with_a_teacher_the_spread_of_the_predictions_tells_a_collapse_and_no_rank():
    # Of digits, a teacher has few dimensions, and so has what learns from it.
    adapted = dataclasses.replace(SETTINGS, init="imagenet", teacher="imagenet", objective=DistillationConfig())
    start = dataclasses.replace(line(0, rank=221, std=0.6), diagnostics={})
    for spread, collapsed in ((0.8, False), (0.01, True)):
        diagnostics = {"prediction_spread": spread}
        history = [start, *(dataclasses.replace(line(n, 48, 0.5), diagnostics=diagnostics) for n in range(20, 24))]
        assert is_collapsing(history, adapted) is collapsed
        assert judge(history, adapted, 1280).kind == ("collapsed" if collapsed else "healthy")


def test_trained_weights_that_lose_a_little_rank_have_not_collapsed():
    begun = dataclasses.replace(SETTINGS, init="runs/other")
    history = [line(0, rank=100, std=0.6), *(line(epoch, 99 - epoch / 10, 0.58) for epoch in range(20, 24))]
    assert not is_collapsing(history, begun)
    assert is_collapsing(history, SETTINGS)
    assert judge(history, begun, 512).kind == "healthy"
    halved = [history[0], line(1, rank=49, std=0.7)]
    assert str(judge(halved, begun, 512)).startswith("doubtful: rank 49 of 512, start 100: some dimensions have died")
    lost = [history[0], *(line(epoch, 49 - epoch / 10, 0.3) for epoch in range(20, 24))]
    assert is_collapsing(lost, begun)
    assert str(judge(lost, begun, 512)).startswith("collapsed: ")


def test_a_gain_within_the_interval_is_doubtful():
    doubtful = verdict(UNTRAINED, line(1, knn=0.44, gain=(-0.01, 0.07)))
    assert doubtful.startswith("doubtful: ")
    assert "(95 % interval of the gain, kNN to untrained -0.010 to +0.070); more epochs or images may help" in doubtful
    assert verdict(UNTRAINED, line(1, knn=0.44, gain=(0.001, 0.06))).startswith("healthy: ")


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
    assert is_collapsing(history, settings(0))
    assert not is_collapsing(history[:-1], settings(0))
    assert not is_collapsing(history, settings(len(epochs) - 1))
    assert verdict(*history).startswith("collapsed: ")


def test_what_is_no_collapse():
    # A low rank of well spread embeddings: few kinds of image.
    assert not is_collapsing([UNTRAINED, *(line(epoch, rank=40) for epoch in (1, 2, 3, 4))], settings(0))
    # A dip that it recovers from.
    assert not is_collapsing([UNTRAINED, line(1, 70, 0.2), line(2, 80, 0.25), line(3, 90, 0.3)], settings(0))
    assert not is_collapsing([UNTRAINED], settings(0))


@pytest.mark.parametrize(
    ("config", "cause"),
    [
        (
            TrainConfig(batch_size=64, learning_rate=0.5),
            r"1000\.0 times the usual one of adamw: learning_rate=0\.0005",
        ),
        (TrainConfig(batch_size=64, accumulate=4), "batch norm sees 16 images at a time.*batch_size=64"),
        (TrainConfig(batch_size=64), r"too high for resnet18.*learning_rate=0\.00017, or warmup_epochs=20"),
        (TrainConfig(batch_size=64, teacher="imagenet"), r"too high for resnet18.*learning_rate=0\.001, or warmup"),
    ],
)
def test_the_likely_cause(config: TrainConfig, cause: str):
    message, arguments = likely_cause(resolve(config, 1000))
    assert re.search(cause, name_arguments(message, arguments, in_python))


def test_no_batch_is_advised_that_there_are_no_images_for():
    config = TrainConfig(batch_size=16)
    assert likely_cause(resolve(config, 44))[1] == {"batch_size": 44}
    assert "batch_size" not in likely_cause(resolve(config, 20))[1]


def test_the_verdict_names_no_objective():
    """Any diagnostic with a least tells a collapse: here one of an objective of the test's."""

    @dataclasses.dataclass(frozen=True)
    class Other(BYOLConfig):
        diagnostics: ClassVar[Mapping[str, Diagnostic]] = {"contrast": Diagnostic("contrast", least=0.5)}

    other = dataclasses.replace(SETTINGS, objective=Other())
    low, high = (Metrics(1, 10, 1.0, 0.1, {"contrast": value}, 140, 0.65) for value in (0.4, 0.6))
    collapsed = "collapsed: rank 140 of 512, untrained 100, contrast 0.40"
    assert str(judge([UNTRAINED, low], other, 512)).startswith(collapsed)
    assert judge([UNTRAINED, high], other, 512).kind == "healthy"


def test_what_is_no_better_than_raw_pixels_is_doubtful():
    better = dataclasses.replace(line(1, knn=0.86), knn_raw=0.8, knn_lead=Interval(0.06, 0.02, 0.1))
    assert verdict(UNTRAINED, better) == (
        "healthy: rank 140 of 512, untrained 100; kNN 0.860, untrained 0.410, raw pixels 0.800"
    )
    level = dataclasses.replace(better, knn_lead=Interval(0.02, -0.01, 0.05))
    assert verdict(UNTRAINED, level) == (
        "doubtful: rank 140 of 512, untrained 100; kNN 0.860, untrained 0.410, raw pixels 0.800 "
        "(95 % interval of the gain, kNN to raw pixels -0.010 to +0.050); more epochs or images may help"
    )


def test_what_did_not_move_from_its_start_is_doubtful():
    pretrained = dataclasses.replace(SETTINGS, init="timm:resnet18")
    still = dataclasses.replace(line(1), moved=1e-6)
    assert str(judge([line(0), still], pretrained, 512)).startswith(
        "doubtful: rank 140 of 512, start 140: it is where it started; try learning_rate=0.0015"
    )
    assert judge([line(0), dataclasses.replace(line(1), moved=0.01)], pretrained, 512).kind == "healthy"


def test_identical_images_are_doubtful():
    alike = str(judge([line(0, rank=1), line(1, rank=1)], SETTINGS, 512))
    assert alike.startswith("doubtful: rank 1 of 512, untrained 1: all images look alike to it, or are")


def evidence(share: float = 1.0, gain: tuple[float, float] = (0.01, 0.05), **figures: Any) -> Evidence:
    """Of a network of view consistency 0.65, its start of 0.62 and raw pixels of 0.4."""
    found = Figures(140, 0.65, moved=0.3, **figures)
    return Evidence(share, found, 0.65, 0.62, 0.4, Interval(0.03, *gain), Interval(0.25, 0.2, 0.3))


def test_without_labels_view_consistency_decides():
    history = [line(0, rank=100, std=0.33), line(1)]
    assert str(judge(history, SETTINGS, 512, evidence())) == (
        "healthy: rank 140 of 512, untrained 100; view consistency 0.650, untrained 0.620, raw pixels 0.400"
    )
    assert str(judge(history, SETTINGS, 512, evidence(gain=(-0.01, 0.05)))).endswith(
        "(95 % interval of the gain, view consistency to untrained -0.010 to +0.050); more epochs or images may help"
    )


def test_one_figure_may_decide_what_the_other_leaves_open_and_none_may_say_the_opposite():
    history = [UNTRAINED, line(1, knn=0.44, gain=(-0.01, 0.07))]
    of_knn = {"knn": 0.44, "knn_gain": Interval(0.03, -0.01, 0.07)}
    of_knn |= {"knn_raw": 0.4, "knn_lead": Interval(0.04, -0.01, 0.09)}
    assert judge(history, SETTINGS, 512, evidence(**of_knn)).kind == "healthy"
    of_knn["knn_lead"] = Interval(-0.04, -0.09, -0.01)
    assert judge(history, SETTINGS, 512, evidence(**of_knn)).kind == "doubtful"


def test_a_run_that_holds_its_start_says_so():
    begun = dataclasses.replace(SETTINGS, init="timm:resnet18")
    held = str(judge([line(0), line(1)], begun, 512, evidence(share=0.0)))
    assert held == (
        "doubtful: training did not help, so the run holds its start; rank 140 of 512, start 140; "
        "view consistency 0.650, start 0.620, raw pixels 0.400"
    )
    half = str(judge([line(0), line(1)], begun, 512, evidence(share=0.5)))
    assert half.startswith("healthy: weights 50% of the way from the start to the end, rank 140")


def test_the_verdict_comes_to_a_sentence():
    def told(*history: Metrics, found: Evidence | None = None, settings: Settings = SETTINGS) -> str:
        return judge(history, settings, 512, found).sentence

    begun = dataclasses.replace(SETTINGS, init="timm:resnet18")
    good = dataclasses.replace(line(1, knn=0.86), knn_raw=0.8, knn_lead=Interval(0.06, 0.02, 0.1))
    helped = "Training helped: this encoder is better for these images than"
    assert told(UNTRAINED, good) == f"{helped} the untrained network and raw pixels."
    assert told(UNTRAINED, good, settings=begun) == f"{helped} its start and raw pixels."
    level = dataclasses.replace(good, knn_lead=Interval(0.02, -0.01, 0.05))
    assert told(UNTRAINED, level) == "It is not certain that this encoder is better for these images than raw pixels."
    below = dataclasses.replace(good, knn_lead=Interval(-0.2, -0.3, -0.1))
    assert told(UNTRAINED, below) == "This encoder is worse for these images than raw pixels."
    assert "was not measured" in told(line(0, rank=100, std=0.33), line(1))
    assert told(line(0, rank=1), line(1, rank=1)) == "All images look alike to this network."
    assert told(line(0), line(1, spread=0.01)) == "All images look alike to this network."
    assert "learned nothing" in told(line(0), dataclasses.replace(line(1), moved=1e-6), settings=begun)
    assert "fewer dimensions" in told(UNTRAINED, line(1, rank=60, knn=0.5))
    assert "did not help" in told(line(0), line(1), found=evidence(share=0.0), settings=begun)
