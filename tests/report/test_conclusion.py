"""The sentence on top, of findings that say one thing or another."""

from dataclasses import replace

import pytest
from byol_edge.evaluate.comparison import Comparison
from byol_edge.report.conclusion import conclude
from byol_edge.report.findings import Report
from byol_edge.report.measure import Measured
from byol_edge.runtime.interval import Interval


def rank(report: Report, **means: float) -> Comparison:
    """The comparison as if the encoders whose names end so had these figures, each far from the next."""
    encoders = []
    for each in report.comparison.encoders:
        mean = next(value for name, value in means.items() if each.name.endswith(name))
        gap = mean - max(means.values())
        own = Interval(gap, gap - 0.001, gap + 0.001) if gap else None
        encoders.append(replace(each, deciding=Interval(mean, mean, mean), gap=own))
    return replace(report.comparison, encoders=tuple(encoders))


@pytest.mark.parametrize(
    ("means", "kind", "told"),
    [
        ({"pixels": 0.3, "int8": 0.8, "fp32": 0.7, "shapes": 0.6}, "ship", "It is worth shipping: 5-NN accuracy 0.800"),
        (
            {"pixels": 0.3, "int8": 0.5, "fp32": 0.6, "shapes": 0.8},
            "doubtful",
            "accuracy 0.800 beside 0.600, and 0.300",
        ),
        (
            {"pixels": 0.9, "int8": 0.8, "fp32": 0.7, "shapes": 0.6},
            "doubtful",
            "nothing here is clearly better than raw",
        ),
    ],
)
def test_what_is_worth_shipping(measured: Measured, means: dict[str, float], kind: str, told: str):
    report = measured.report
    conclusion = conclude(replace(report, comparison=rank(report, **means)))
    assert conclusion.kind == kind
    assert told in conclusion.sentence
    assert f"{report.subject} is faithful: all 6 variants reproduce PyTorch" in conclusion.sentence
    assert "None" not in conclusion.sentence + conclusion.advice


def test_quantization_that_costs_too_much_asks_for_better_images(measured: Measured):
    report = measured.report
    assert report.validation is not None
    *good, bad = report.validation.variants
    missed = replace(bad, failures=("overlap of the 10 nearest 0.8, needs ≥ 0.9",), cause="quantization itself: …")
    failing = replace(report, validation=replace(report.validation, variants=(*good, missed)))
    conclusion = conclude(failing)
    assert conclusion.kind == "doubtful"
    assert "with images like these to calibrate with" in conclusion.advice
    assert conclude(replace(failing, default=f"{bad.name} on {bad.engine}")).kind == "stop"
