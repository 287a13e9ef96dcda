"""The verdict on a run, in words, and the cause of a collapse: all from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..models.objective import Diagnostic
from ..runtime.errors import Spell, in_python, name_arguments
from ..runtime.interval import Interval
from ..runtime.run import Metrics
from .recipe import RECIPES
from .selection import Evidence
from .settings import Settings

# A dip right after warm-up is common; this many epochs in a row are not.
COLLAPSING_EPOCHS = 3
# Below this rank, there is one embedding for all images; below this distance to the start, nothing was learned.
ALL_ALIKE, UNMOVED = 1.5, 1e-4
RAW = "raw pixels"
ALIKE = "All images look alike to this network."
# In smaller batches, batch norm's statistics are noise.
SMALL_PART = 32


@dataclass(frozen=True)
class Verdict:
    """`kind`: "healthy", "doubtful" or "collapsed"; `message` says why, and names `arguments` as an error does.

    `sentence`: what it comes to, for a reader who knows none of the figures.
    """

    kind: str
    message: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    sentence: str = ""

    def describe(self, spell: Spell) -> str:
        """In one line, with each argument as `spell` writes it."""
        return f"{self.kind}: {name_arguments(self.message, self.arguments, spell)}"

    def __str__(self) -> str:
        return self.describe(in_python)


def judge(
    history: Sequence[Metrics], settings: Settings, embedding_size: int, evidence: Evidence | None = None
) -> Verdict:
    """The verdict after the last of `history`, whose first line is the network before training (epoch 0).

    `evidence`: on the network that a finished run holds, which the verdict is then on. Collapsed: see has_collapsed.
    Healthy: the embeddings have moved, their rank is not below the start's (see _least_rank), and kNN, or view
    consistency where kNN was not measured, is above the start's and above raw pixels' by intervals that are wholly
    above 0. Doubtful: anything else.
    """
    if evidence is not None and len(history) > 1:
        history = [*history[:-1], replace(history[-1], **vars(evidence.figures))]
    first, last = history[0], history[-1]
    start = "untrained" if settings.init is None else "start"
    rank = f"rank {last.rank:.0f} of {embedding_size}, {start} {first.rank:.0f}"
    if last.epoch and has_collapsed(last, first, settings):
        low = [f"{each.title} {last.diagnostics[name]:.2f}" for name, each in _telling(last, settings)]
        cause, arguments = likely_cause(settings)
        return Verdict("collapsed", f"{', '.join([rank, *low])}; {cause}", arguments, ALIKE)
    figures = [*_find_accuracy(history, start), *_find_consistency(start, evidence)]
    accuracy, told, is_better = _judge_accuracy(figures, start)
    if last.rank < ALL_ALIKE:
        return Verdict("doubtful", f"{rank}: all images look alike to it, or are; {accuracy}", sentence=ALIKE)
    if evidence is not None and evidence.share == 0:
        message = f"training did not help, so the run holds its start; {rank}; {'; '.join(map(_describe, figures))}"
        return Verdict(
            "doubtful", message, sentence="Training did not help: the run holds the weights that it started from."
        )
    if evidence is not None and evidence.share < 1:
        rank = f"weights {evidence.share:.0%} of the way from the start to the end, {rank}"
    if last.epoch and last.moved is not None and last.moved < UNMOVED:
        higher = {"learning_rate": f"{3 * settings.plan.learning_rate:.2g}"}
        message = f"{rank}: it is where it started; try {{learning_rate}}; {accuracy}"
        return Verdict("doubtful", message, higher, "The network has learned nothing: it is where it started.")
    if last.rank < _least_rank(first, settings):
        sentence = "The vectors use fewer dimensions than before the training: it may have done harm."
        return Verdict("doubtful", f"{rank}: some dimensions have died; {accuracy}", sentence=sentence)
    return Verdict("healthy" if is_better else "doubtful", f"{rank}; {accuracy}", sentence=told)


@dataclass(frozen=True)
class _Figure:
    """A figure of the encoder, and of each rival that it has to beat: by name, the figure and the paired gain on it."""

    name: str
    value: float
    rivals: dict[str, tuple[float, Interval]]


def _judge_accuracy(figures: Sequence[_Figure], start: str) -> tuple[str, str, bool]:
    """What tells how good the encoder is, beside what it has to beat; in a sentence, whether it does; and whether.

    That is the last accuracy that was measured, and the evidence without labels. For each rival, one of them has to be
    certain of a gain, and none of a loss.
    """
    if not figures:
        told = "The network has not collapsed; whether it is any good for these images was not measured."
        return "accuracy was not measured, which takes class folders or labels, with ten images per class", told, True
    text = "; ".join(map(_describe, figures))
    gains = {name: [(each.name, each.rivals[name][1]) for each in figures] for name in figures[0].rivals}
    missed = {name: its for name, its in gains.items() if not _beats([gain for _, gain in its])}
    names = {start: "the untrained network" if start == "untrained" else "its start"}
    if not missed:
        beaten = " and ".join(names.get(name, name) for name in gains)
        return text, f"Training helped: this encoder is better for these images than {beaten}.", True
    intervals = "; ".join(
        f"{figure} to {name} {gain.lower:+.3f} to {gain.upper:+.3f}"
        for name, its in missed.items()
        for figure, gain in its
    )
    worse = [name for name, its in missed.items() if any(gain.upper < 0 for _, gain in its)]
    than = " and ".join(names.get(name, name) for name in worse or missed)
    told = f"It is not certain that this encoder is better for these images than {than}."
    if worse:
        told = f"This encoder is worse for these images than {than}."
    return f"{text} (95 % interval of the gain, {intervals}); more epochs or images may help", told, False


def _find_accuracy(history: Sequence[Metrics], start: str) -> list[_Figure]:
    first, measured = history[0], [each for each in history[1:] if each.knn is not None]
    if first.knn is None or not measured:
        return []
    last, none = measured[-1], Interval(0.0, 0.0, 0.0)
    rivals = {start: (first.knn, last.knn_gain or none)}
    if last.knn_raw is not None:
        rivals[RAW] = (last.knn_raw, last.knn_lead or none)
    return [_Figure("kNN", last.knn or 0.0, rivals)]


def _find_consistency(start: str, evidence: Evidence | None) -> list[_Figure]:
    if evidence is None:
        return []
    rivals = {start: (evidence.start, evidence.gain), RAW: (evidence.raw, evidence.lead)}
    return [_Figure("view consistency", evidence.consistency, rivals)]


def _describe(figure: _Figure) -> str:
    beside = [f"{name} {value:.3f}" for name, (value, _) in figure.rivals.items()]
    return ", ".join([f"{figure.name} {figure.value:.3f}", *beside])


def _beats(gains: Sequence[Interval]) -> bool:
    """Whether one of several measures is certain of a gain, and none of a loss."""
    return any(gain.lower > 0 for gain in gains) and not any(gain.upper < 0 for gain in gains)


def has_collapsed(epoch: Metrics, start: Metrics, settings: Settings) -> bool:
    """Whether all images have become alike to the network, in one of two ways.

    Either a diagnostic of the objective is below its least, as the projections' deviation is without a predictor, while
    the embeddings may still be as good as random ones; or rank and deviation of the embeddings are both below the
    start's, as with too high a rate (see _least_rank).
    """
    alike = any(epoch.diagnostics[name] < each.least for name, each in _telling(epoch, settings) if each.least)
    return alike or (epoch.rank < _least_rank(start, settings) and epoch.embedding_std < start.embedding_std)


def _least_rank(start: Metrics, settings: Settings) -> float:
    """Below this, dimensions have died. Trained weights may lose some of their rank, that of other images.

    With a teacher, no rank says so: images that are alike, such as digits, have few dimensions to the teacher, too.
    """
    if settings.objective.needs_teacher:
        return 0.0
    return start.rank if settings.init is None else start.rank / 2


def is_collapsing(history: Sequence[Metrics], settings: Settings) -> bool:
    """Whether three epochs in a row after warm-up have collapsed, without recovering."""
    start = history[0]
    recent = [each for each in history[1:] if each.epoch > settings.plan.warmup_epochs][-COLLAPSING_EPOCHS:]
    if len(recent) < COLLAPSING_EPOCHS or not all(has_collapsed(each, start, settings) for each in recent):
        return False
    # A network on its way back is given its time, one that lost half of its dimensions is not.
    return recent[-1].rank < max(recent[0].rank, start.rank / 2)


def likely_cause(settings: Settings) -> tuple[str, dict[str, object]]:
    """The likeliest cause of a collapse, with what to change: a message and the arguments that it names."""
    plan = settings.plan
    rates = RECIPES[settings.recipe]().rates_of(settings.optimizer)
    usual = settings.objective.rate * rates.peak(plan.batch_size)
    if plan.learning_rate > 1.5 * usual:
        return (
            f"the learning rate is {plan.learning_rate / usual:.1f} times the usual one of {settings.optimizer}: "
            "{learning_rate}",
            {"learning_rate": f"{usual:.2g}"},
        )
    if plan.part_size < SMALL_PART <= plan.images:
        return (
            f"batch norm sees {plan.part_size} images at a time, too few for its statistics: {{batch_size}}",
            {"batch_size": min(2 * SMALL_PART, plan.images)},
        )
    return (
        f"the learning rate is too high for {settings.backbone}, or the warm-up too short: "
        "{learning_rate}, or {warmup_epochs}",
        {
            "learning_rate": f"{plan.learning_rate / 3:.2g}",
            "warmup_epochs": f"{max(1, 2 * plan.warmup_epochs):g}",
        },
    )


def _telling(epoch: Metrics, settings: Settings) -> list[tuple[str, Diagnostic]]:
    """The objective's diagnostics that tell a collapse, as far as this epoch has them."""
    diagnostics = settings.objective.diagnostics
    return [(name, each) for name, each in diagnostics.items() if each.least is not None and name in epoch.diagnostics]
