"""The verdict on a run, in words, and the cause of a collapse: all from what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .monitor import Metrics
from .optimizer import RATES
from .recipe import Settings

# A dip right after warm-up is common; this many epochs in a row are none.
COLLAPSING_EPOCHS = 3
# Below this deviation, the projections of all images are nearly one; they are near .8 in a healthy run.
NEARLY_EQUAL = 0.2
# In smaller batches, batch norm's statistics are noise.
SMALL_PART = 32


@dataclass(frozen=True)
class Verdict:
    """`kind`: "healthy", "doubtful" or "collapsed"; `text` says why."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def judge(history: Sequence[Metrics], settings: Settings, embedding_size: int, queries: int) -> Verdict:
    """The verdict after the last of `history`, whose first line is the untrained network (epoch 0).

    Collapsed: see has_collapsed. Healthy: the rank is not below the untrained network's, and kNN, where it was
    measured, above it by more than the 95 % interval of the difference. Doubtful: anything else.
    """
    untrained, last = history[0], history[-1]
    rank = f"rank {last.rank:.0f} of {embedding_size}, untrained {untrained.rank:.0f}"
    if last.epoch and has_collapsed(last, untrained):
        return Verdict(
            "collapsed", f"{rank}, projections' deviation {last.projection_std:.2f}; {likely_cause(settings)}"
        )
    measured = [each.knn for each in history[1:] if each.knn is not None]
    if untrained.knn is None or not measured:
        accuracy, learned = "no class folders or --labels, so accuracy was not measured", True
    else:
        margin = 1.96 * (sum(p * (1 - p) for p in (untrained.knn, measured[-1])) / queries) ** 0.5
        accuracy = f"kNN {measured[-1]:.3f}, untrained {untrained.knn:.3f}"
        learned = measured[-1] - untrained.knn > margin
        if not learned:
            accuracy += f" (95 % interval of the difference: ± {margin:.3f}); more epochs or images may help"
    if last.rank < untrained.rank:
        return Verdict("doubtful", f"{rank}: some dimensions have died; {accuracy}")
    return Verdict("healthy" if learned else "doubtful", f"{rank}; {accuracy}")


def has_collapsed(epoch: Metrics, untrained: Metrics) -> bool:
    """Whether all images have become alike to the network, in one of two ways.

    Either their projections are nearly equal, as without a predictor, and the embeddings are no better than random; or
    rank and deviation of the embeddings are both below the untrained network's, as with too high a rate.
    """
    equal = epoch.projection_std is not None and epoch.projection_std < NEARLY_EQUAL
    return equal or (epoch.rank < untrained.rank and epoch.embedding_std < untrained.embedding_std)


def is_collapsing(history: Sequence[Metrics], warmup_epochs: float) -> bool:
    """Whether three epochs in a row after warm-up have collapsed, without recovering."""
    untrained = history[0]
    recent = [each for each in history[1:] if each.epoch > warmup_epochs][-COLLAPSING_EPOCHS:]
    if len(recent) < COLLAPSING_EPOCHS or not all(has_collapsed(each, untrained) for each in recent):
        return False
    # A network on its way back is given its time, one that lost half of its dimensions is not.
    return recent[-1].rank < max(recent[0].rank, untrained.rank / 2)


def likely_cause(settings: Settings) -> str:
    """The likeliest cause of a collapse, and what to change."""
    usual = RATES[settings.optimizer].peak(settings.batch_size)
    if settings.learning_rate > 1.5 * usual:
        return (
            f"the learning rate is {settings.learning_rate / usual:.1f} times the usual one of {settings.optimizer}: "
            f"--learning-rate {usual:.2g}"
        )
    part = settings.batch_size // settings.accumulate
    if part < SMALL_PART:
        return f"batch norm sees {part} images at a time, too few for its statistics: --batch-size {2 * SMALL_PART}"
    return (
        f"the learning rate is too high for {settings.backbone}, or the warm-up too short: "
        f"--learning-rate {settings.learning_rate / 3:.2g}, or --warmup-epochs {max(1, 2 * settings.warmup_epochs):g}"
    )
