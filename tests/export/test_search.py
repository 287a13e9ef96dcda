import dataclasses
from collections.abc import Collection

import pytest
from byol_edge.evaluate.layers import Layer
from byol_edge.export.search import MOST_IN_FLOAT, Attempt, climb
from byol_edge.runtime import RunError
from byol_edge.runtime.fidelity import Fidelity

FAITHFUL = Fidelity(100, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0)
# Signal to noise falls most at c, then at b.
LAYERS = [Layer(name, ratio, 1.0) for name, ratio in (("a", 40), ("b", 30), ("c", 10), ("d", 9), ("embeddings", 9))]
SHARES = {"a": 0.1, "b": 0.05, "c": 0.1, "d": 0.02}

Made = tuple[str, tuple[str, ...]]


class Workshop:
    """Attempts whose fidelity is as told, and what was asked of them."""

    def __init__(self, **cosines: float) -> None:
        self.cosines = cosines
        self.made: list[Made] = []
        self.gain = 0.0

    def attempt(self, name: str) -> Attempt[Made]:
        def quantize(in_float: Collection[str]) -> Made:
            self.made.append((name, tuple(in_float)))
            if self.cosines[name] < 0:
                raise ValueError("no kernel for this\nand more")
            return name, tuple(in_float)

        return Attempt(name, quantize)

    def judge(self, made: Made) -> Fidelity:
        cosine = self.cosines[made[0]] + self.gain * len(made[1])
        return dataclasses.replace(FAITHFUL, cosine_mean=cosine, cosine_p01=cosine)

    def climb(self, *groups: str, tuned: str | None = None):
        attempts = [[self.attempt(name) for name in group] for group in groups]
        fine_tuned = [[self.attempt(f"{tuned}{name}") for name in group] for group in groups] if tuned else []
        return climb(attempts, self.judge, lambda _: LAYERS, SHARES, fine_tuned, lambda _: None)


def test_a_group_is_tried_whole_and_the_better_is_kept():
    shop = Workshop(x=0.996, y=0.999, z=1.0)
    model, ladder = shop.climb("xy", "z")
    assert model == ("y", ())
    assert [rung.name for rung in ladder.rungs] == ["x", "y"]
    assert ladder.kept.name == "y"
    assert ladder.kept.float_share == 0


def test_the_next_group_is_tried_where_none_is_good_enough():
    model, ladder = Workshop(x=0.98, y=0.99, z=0.996).climb("xy", "z")
    assert model == ("z", ())
    assert len(ladder.rungs) == 3


def test_layers_that_lose_most_go_into_float_fewest_first():
    shop = Workshop(x=0.98)
    shop.gain = 0.008
    model, ladder = shop.climb("x")
    assert shop.made == [("x", ()), ("x", ("c",)), ("x", ("c", "b"))]
    assert model == ("x", ("c", "b"))
    assert ladder.kept.name == "x, 2 layers in float"
    assert ladder.kept.float_share == pytest.approx(0.15)


def test_no_more_goes_into_float_than_a_fifth_and_the_best_is_kept_all_the_same():
    shop = Workshop(x=0.9)
    shop.gain = -0.01
    model, ladder = shop.climb("x")
    assert model == ("x", ())
    assert len(ladder.rungs) == 4
    assert max(rung.float_share for rung in ladder.rungs) <= MOST_IN_FLOAT


def test_fine_tuning_comes_last_with_the_best_layers_in_float():
    shop = Workshop(x=0.9, y=0.8, tuned_x=0.95, tuned_y=0.94)
    shop.gain = 0.01
    model, ladder = shop.climb("xy", tuned="tuned_")
    assert model == ("tuned_x", ("c", "b", "d"))
    last = [rung.name for rung in ladder.rungs][-3:]
    assert last == ["x, 3 layers in float", "tuned_x, 3 layers in float", "tuned_y, 3 layers in float"]


def test_what_fine_tuning_spoils_is_not_kept():
    model, _ = Workshop(x=0.9, tuned_x=0.5).climb("x", tuned="tuned_")
    assert model == ("x", ())
    model, ladder = Workshop(x=0.9, tuned_x=-1).climb("x", tuned="tuned_")
    assert model == ("x", ())
    assert ladder.rungs[-1].error == "no kernel for this"


def test_where_int8_is_good_nothing_is_fine_tuned():
    shop = Workshop(x=0.999, tuned_x=1.0)
    shop.climb("x", tuned="tuned_")
    assert shop.made == [("x", ())]


def test_an_attempt_that_raises_is_recorded_and_passed_over():
    model, ladder = Workshop(x=-1, y=0.999).climb("xy")
    assert model == ("y", ())
    assert ladder.rungs[0].error == "no kernel for this"
    assert ladder.rungs[0].to_json() == {"name": "x", "float_share": 0, "error": "no kernel for this"}


def test_where_nothing_works_the_last_error_is_told():
    with pytest.raises(RunError, match="no kernel for this"):
        Workshop(x=-1, y=-1).climb("x", "y")
