"""What a report comes to, in a sentence: is the encoder faithful, is it worth shipping, is it fast; and what to do."""

from __future__ import annotations

from ..evaluate.comparison import CONSISTENCY, FEW_LABELS, KNN, RAW, Compared
from .findings import Conclusion, Report
from .sources import ALL, PYTORCH

FIGURES = {KNN: "5-NN accuracy", CONSISTENCY: "view consistency", FEW_LABELS: "the figure with labels"}


def conclude(report: Report) -> Conclusion:
    """ "stop": what would be shipped is broken, or not what was trained. "doubtful": another variant is, or nothing is
    clearly better than raw pixels. "ship": neither."""
    failures = find_failures(report)
    if failures:
        return _conclude_broken(report, failures)
    ship, figure = report.comparison.ship, FIGURES[report.comparison.figure]
    values = {each.name: f"{each.deciding.mean:.3f}" for each in report.comparison.encoders}
    if ship is None:
        own = _find_own(report)
        beside = f", {figure} {values[own.name]} beside {values[RAW]} of raw pixels" if own else ""
        sentence = f"{_describe_faith(report)}, but it is not clearly better than raw pixels on these images{beside}."
        advice = (
            "Do not ship it for these images yet. Train for longer, start from pretrained weights, or use more images."
        )
        return Conclusion("doubtful", sentence, advice)
    who = "It" if _is_own(report, ship) else ship.name
    worth = f"{who} is worth shipping: {figure} {values[ship.name]} beside {values[RAW]} of raw pixels"
    return Conclusion("ship", f"{_describe_faith(report)}. {worth}{_describe_speed(ship)}.", report.comparison.advice)


def find_failures(report: Report) -> dict[str, str]:
    """What is wrong, and the likeliest cause, by the name of a variant, or of what all variants share."""
    found = dict(report.broken)
    for each in report.validation.variants if report.validation else ():
        if each.failures:
            cause = f". Likely cause: {each.cause}" if each.cause else ""
            found[f"{each.name} on {each.engine}"] = "; ".join(each.failures) + cause
    if report.validation and report.validation.around:
        found[ALL] = "; ".join(report.validation.around)
    return found


def _conclude_broken(report: Report, failures: dict[str, str]) -> Conclusion:
    if set(failures) == {PYTORCH}:
        sentence = f"{report.subject} cannot be held against PyTorch: {failures[PYTORCH]}."
        return Conclusion("doubtful", sentence, "Its variants are compared with each other and with raw pixels below.")
    names = sorted(failures, key=lambda name: name != report.default)  # the default first
    fails = f"{_join(names)} of {report.subject} {'fails' if len(names) == 1 else 'fail'}"
    sentence = f"{fails}. {names[0]}: {failures[names[0]].rstrip('.')}."
    good = [name for name in report.timings if name not in failures and name != PYTORCH]
    if ALL in failures or not good:
        return Conclusion("stop", sentence, f"Do not ship {report.subject}. Export it again, then report again.")
    advice = f"{good[0]} is within its gates: ship that, or export again, with images like these to calibrate with."
    return Conclusion("stop" if report.default in failures else "doubtful", sentence, advice)


def _describe_faith(report: Report) -> str:
    if report.validation is None:
        return f"{report.subject} has not been exported, so PyTorch runs it here"
    count = len(report.validation.variants)
    variants = "its one variant reproduces" if count == 1 else f"all {count} variants reproduce"
    return f"{report.subject} is faithful: {variants} PyTorch"


def _describe_speed(encoder: Compared) -> str:
    if encoder.timing is None:
        return ""
    milliseconds = encoder.timing.median
    return f". It takes {milliseconds:.2f} ms per image on this machine, {1000 / milliseconds:,.0f} per second"


def _find_own(report: Report) -> Compared | None:
    """The best of the subject's own."""
    own = [each for each in report.comparison.encoders if _is_own(report, each)]
    return max(own, key=lambda each: each.deciding.mean, default=None)


def _is_own(report: Report, encoder: Compared) -> bool:
    """Whether it is the subject, or one of its precisions."""
    return report.subject in (encoder.name, encoder.name.rpartition(" ")[0])


def _join(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
