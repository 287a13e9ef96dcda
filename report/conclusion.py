"""What a report comes to, in a sentence: is the encoder faithful, is it worth shipping, is it fast; and what to do."""

from __future__ import annotations

from ..evaluate.comparison import CONSISTENCY, FEW_LABELS, KNN, RAW, Compared
from ..runtime.fidelity import GATES
from ..runtime.text import join
from .findings import Conclusion, Report
from .sources import ALL, PYTORCH, name_variant

FIGURES = {KNN: "5-NN accuracy", CONSISTENCY: "view consistency", FEW_LABELS: "view consistency and average precision"}


def conclude(report: Report) -> Conclusion:
    """ "stop": what would be shipped is broken, or not what was trained. "doubtful": another variant is, or another
    encoder is the one to ship, or nothing is clearly better than raw pixels. "ship": the subject is."""
    failures = find_failures(report)
    if failures:
        return _conclude_broken(report, failures)
    comparison, figure = report.comparison, FIGURES[report.comparison.figure]
    ship, own, faith = comparison.ship, _find_own(report), _describe_faith(report)
    raw = next(f"{each.deciding.mean:.3f}" for each in comparison.encoders if each.name == RAW)
    if ship is None:
        values = f"{figure} {own.deciding.mean:.3f} beside {raw}"
        sentence = f"{faith}, but nothing here is clearly better than raw pixels: {values}."
        advice = (
            "Do not ship it for these images yet. Train for longer, start from pretrained weights, or use more images."
        )
        return Conclusion("doubtful", sentence, advice)
    if not _is_own(report, ship):
        values = f"{ship.deciding.mean:.3f} beside {own.deciding.mean:.3f}, and {raw} of raw pixels"
        return Conclusion("doubtful", f"{faith}, but ship {ship.name}: {figure} {values}.", comparison.advice)
    worth = f"It is worth shipping: {figure} {ship.deciding.mean:.3f} beside {raw} of raw pixels"
    return Conclusion("ship", f"{faith}. {worth}{_describe_speed(ship)}.", comparison.advice)


def find_failures(report: Report) -> dict[str, str]:
    """What is wrong, and the likeliest cause, by the name of a variant, or of what all variants share."""
    found = dict(report.broken)
    for each in report.validation.variants if report.validation else ():
        if each.failures:
            cause = f". Likely cause: {each.cause}" if each.cause else ""
            found[name_variant(each.name, each.engine)] = "; ".join(each.failures) + cause
    if report.validation and report.validation.around:
        found[ALL] = "; ".join(report.validation.around)
    return found


def _conclude_broken(report: Report, failures: dict[str, str]) -> Conclusion:
    names = sorted((name for name in failures if name != PYTORCH), key=lambda name: name != report.default)
    if not names:
        sentence = f"{report.subject} cannot be held against PyTorch: {failures[PYTORCH]}."
        return Conclusion("doubtful", sentence, "What it holds is compared with raw pixels below.")
    fail = "fails" if len(names) == 1 else "fail"
    sentence = f"{join(names)} of {report.subject} {fail}. {names[0]}: {failures[names[0]].rstrip('.')}."
    variants = report.validation.variants if report.validation else ()
    good = [name_variant(each.name, each.engine) for each in variants if not each.failures]
    again = "copy the bundle again from where it was exported, or export it again"
    if any((each.cause or "").startswith("quantization") for each in variants):
        again = "export again, with images like these to calibrate with"
    if ALL in failures or not good:
        return Conclusion("stop", sentence, f"Do not ship {report.subject}: {again}.")
    kind = "stop" if report.default in failures else "doubtful"
    return Conclusion(kind, sentence, f"{good[0]} is within its gates: ship that, or {again}.")


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


def _find_own(report: Report) -> Compared:
    """The best of the subject's own."""
    own = [each for each in report.comparison.encoders if _is_own(report, each)]
    return max(own, key=lambda each: each.deciding.mean)


def _is_own(report: Report, encoder: Compared) -> bool:
    """Whether it is the subject, or one of its precisions."""
    return encoder.name in (report.subject, *(f"{report.subject} {precision}" for precision in GATES))
