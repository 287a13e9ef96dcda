"""Which encoder to ship, from figures made by hand."""

from dataclasses import replace

import pytest
from byol_edge.evaluate.comparison import RAW, Compared, Comparison, choose
from byol_edge.runtime.interval import Interval
from byol_edge.runtime.timing import Timing


def encoder(name: str, knn: float, gap: tuple[float, float] | None, ms: float | None = 5.0, mb: float = 10) -> Compared:
    """Figures around `knn`; `gap`: the interval of the difference to the best."""
    return Compared(
        name=name,
        engine="pytorch",
        image_size=64,
        embedding_size=256,
        consistency=Interval(knn / 2, knn / 2 - 0.02, knn / 2 + 0.02),
        accuracy={"knn": Interval(knn, knn - 0.04, knn + 0.04)},
        deciding=Interval(knn, knn - 0.04, knn + 0.04),
        gap=Interval(sum(gap) / 2, *gap) if gap else None,
        size=None if name == RAW else round(mb * 1e6),
        timing=Timing(ms, ms, ms, ms) if ms is not None and name != RAW else None,
    )


def compared(*encoders: Compared, figure: str = "knn") -> Comparison:
    return Comparison(images=400, classes=10 if figure == "knn" else 0, figure=figure, judged=372, encoders=encoders)


CLEAR, LEVEL = (-0.10, -0.02), (-0.03, 0.01)
RAW_BEHIND = encoder(RAW, 0.5, (-0.4, -0.2))


def test_the_only_good_one_is_shipped():
    result = compared(RAW_BEHIND, encoder("start", 0.8, CLEAR), encoder("adapted", 0.85, None))
    assert [each.name for each in result.level] == ["adapted"]
    assert result.ship is result.best
    assert result.advice == (
        "By 5-NN accuracy on 372 images of known class, ship adapted: it is better than every other, with 0.850."
    )


def test_the_fastest_of_those_that_are_level_is_shipped():
    result = compared(RAW_BEHIND, encoder("big", 0.85, None, ms=20), encoder("small", 0.84, LEVEL, ms=4))
    assert result.ship is result.encoders[2]
    assert result.advice == (
        "By 5-NN accuracy on 372 images of known class, ship small: it is level with the best, big (0.840 and 0.850), "
        "and the fastest (4.00 ms) of the 2 that are."
    )


def test_one_that_is_faster_but_worse_is_not_shipped():
    result = compared(encoder("big", 0.85, None, ms=20), encoder("small", 0.7, CLEAR, ms=4))
    assert result.ship is result.best


def test_the_best_may_be_the_fastest_too():
    result = compared(encoder("a", 0.85, None, ms=4), encoder("b", 0.84, LEVEL, ms=9), encoder("c", 0.84, LEVEL, ms=12))
    assert result.advice.endswith(
        "ship a: with 0.850 it is the best and the fastest (4.00 ms) of those that are level, b and c being the others."
    )


def test_a_lead_of_less_than_a_tenth_is_none_and_the_smaller_one_is_shipped():
    result = compared(encoder("a", 0.85, None, ms=4.0, mb=12), encoder("b", 0.84, LEVEL, ms=4.3, mb=3))
    assert result.advice.endswith("and the smallest (3.00 MB) of the 2 that are.")
    slow = encoder("c", 0.84, LEVEL, ms=40, mb=1)
    assert "ship b" in compared(*result.encoders, slow).advice
    assert "the smallest of the fastest (3.00 MB) of the 3" in compared(*result.encoders, slow).advice


def test_without_times_size_decides_and_without_both_the_figure():
    a, b = encoder("a", 0.85, None, ms=None, mb=12), encoder("b", 0.84, LEVEL, ms=None, mb=3)
    assert choose([a, b]) == (b, "the smallest (3.00 MB)")
    assert choose([replace(a, size=None), replace(b, size=None)])[0].name == "a"
    alike = compared(replace(b, size=12_000_000), a)
    assert alike.advice.endswith("ship a: with 0.850 it is the best of those that are level, b being the other.")


def test_raw_pixels_that_are_as_good_leave_nothing_to_ship():
    level = compared(encoder(RAW, 0.84, LEVEL), encoder("start", 0.85, None))
    assert level.ship is None
    assert level.advice == (
        "By 5-NN accuracy on 372 images of known class, ship none of these: raw pixels cannot be told from the best, "
        "start (0.850)."
    )
    best = compared(encoder(RAW, 0.9, None), encoder("start", 0.89, LEVEL), encoder("run", 0.5, CLEAR))
    assert best.advice.endswith("ship none of these: raw pixels, 0.900, are the best, and start no better.")
    clear = compared(encoder(RAW, 0.9, None), encoder("start", 0.5, CLEAR))
    assert clear.advice.endswith("ship none of these: raw pixels, 0.900, are better than every encoder here.")


def test_without_classes_view_consistency_decides_and_is_named():
    result = compared(RAW_BEHIND, encoder("start", 0.8, None), figure="consistency")
    assert result.advice == (
        "By view consistency on 372 images, since their classes are not known, ship start: it is better than "
        "every other, with 0.800."
    )


@pytest.mark.parametrize(("upper", "is_level"), [(-0.001, False), (0.0, True), (0.02, True)])
def test_level_means_that_the_interval_reaches_zero(upper: float, is_level: bool):
    assert encoder("a", 0.8, (-0.1, upper)).is_level is is_level


def test_json_holds_the_choice():
    told = compared(RAW_BEHIND, encoder("start", 0.8, None)).to_json()
    assert (told["best"], told["level"], told["ship"]) == ("start", ["start"], "start")
    assert told["encoders"][0]["size"] is None
    assert told["encoders"][1]["accuracy"]["knn"]["mean"] == 0.8
    assert told["advice"].startswith("By 5-NN")


def test_a_handful_of_labels_is_named():
    result = replace(compared(RAW_BEHIND, encoder("start", 0.8, None), figure="few labels"), judged=50)
    assert result.advice == (
        "By view consistency and the average precision of 50 images of known class, ship start: it is better than "
        "every other, with 0.800."
    )
