import dataclasses
from collections.abc import Collection

import pytest
from byol_edge.evaluate.layers import Layer
from byol_edge.export.search import MOST_IN_FLOAT, Method, quantize_by, search
from byol_edge.runtime import RunError
from byol_edge.runtime.fidelity import Fidelity

FAITHFUL = Fidelity(100, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0)
# Signal to noise falls most at c, then at b.
LAYERS = [Layer(name, ratio, 1.0) for name, ratio in (("a", 40), ("b", 30), ("c", 10), ("d", 9), ("embeddings", 9))]
SHARES = {"a": 0.1, "b": 0.05, "c": 0.1, "d": 0.02}

Made = tuple[str, tuple[str, ...]]


class Workshop:
    """A search space whose methods' fidelity is as told, and what was asked of it."""

    shares = SHARES

    def __init__(self, *groups: str, tuned: str | None = None, gain: float = 0.0, **cosines: float) -> None:
        """`gain`: of cosine, for each layer in float."""
        self.groups = groups
        self.tuned = tuned
        self.gain = gain
        self.cosines = cosines
        self.made: list[Made] = []

    def methods(self) -> list[list[Method[Made]]]:
        return [[self.method(name) for name in group] for group in self.groups]

    def fine_tuned(self, method: Method[Made]) -> Method[Made] | None:
        return self.method(f"{self.tuned}{method.name}") if self.tuned else None

    def method(self, name: str) -> Method[Made]:
        def quantize(in_float: Collection[str]) -> Made:
            self.made.append((name, tuple(in_float)))
            if self.cosines[name] < 0:
                raise ValueError("no kernel for this\nand more")
            return name, tuple(in_float)

        return Method(name, quantize)

    def judge(self, model: Made) -> Fidelity:
        cosine = self.cosines[model[0]] + self.gain * len(model[1])
        return dataclasses.replace(FAITHFUL, cosine_mean=cosine, cosine_p01=cosine)

    def measure(self, model: Made) -> list[Layer]:
        return LAYERS


def test_a_group_is_tried_whole_and_the_better_is_kept():
    model, found = search(Workshop("xy", "z", x=0.996, y=0.999, z=1.0))
    assert model == ("y", ())
    assert [trial.name for trial in found.tried] == ["x", "y"]
    assert found.kept.name == "y"
    assert found.kept.float_share == 0


def test_the_next_group_is_tried_where_none_is_good_enough():
    model, found = search(Workshop("xy", "z", x=0.98, y=0.99, z=0.996))
    assert model == ("z", ())
    assert len(found.tried) == 3


def test_layers_that_lose_most_go_into_float_fewest_first():
    shop = Workshop("x", gain=0.008, x=0.98)
    model, found = search(shop)
    assert shop.made == [("x", ()), ("x", ("c",)), ("x", ("c", "b"))]
    assert model == ("x", ("c", "b"))
    assert found.kept.name == "x, 2 layers in float"
    assert found.kept.float_share == pytest.approx(0.15)


def test_no_more_goes_into_float_than_a_fifth_and_the_best_is_kept_all_the_same():
    model, found = search(Workshop("x", gain=-0.01, x=0.9))
    assert model == ("x", ())
    assert len(found.tried) == 4
    assert max(trial.float_share for trial in found.tried) <= MOST_IN_FLOAT


def test_layers_in_float_that_gain_next_to_nothing_are_not_kept():
    model, found = search(Workshop("x", gain=0.001, x=0.9))
    assert model == ("x", ())
    assert found.kept.name == "x"
    assert found.tried[-1].name == "x, 3 layers in float"
    model, _ = search(Workshop("x", gain=0.011, x=0.9))
    assert model == ("x", ("c", "b", "d"))


def test_layers_in_float_that_make_it_good_are_kept_however_little_they_gain():
    model, _ = search(Workshop("x", gain=0.0002, x=0.9949))
    assert model == ("x", ("c",))


def test_rows_without_a_direction_are_worse_than_any():
    model, _ = search(Workshop("xy", x=float("nan"), y=0.3))
    assert model == ("y", ())


def test_one_method_is_taken_whatever_comes_of_it():
    shop = Workshop("x", tuned="tuned_", x=0.5, y=-1)
    model, found = quantize_by(shop, shop.method("x"))
    assert (model, found.kept.name, len(found.tried)) == (("x", ()), "x", 1)
    with pytest.raises(RunError, match="no kernel for this"):
        quantize_by(shop, shop.method("y"))


def test_fine_tuning_comes_last_with_the_best_layers_in_float():
    model, found = search(Workshop("xy", tuned="tuned_", gain=0.01, x=0.9, y=0.8, tuned_x=0.95, tuned_y=0.94))
    assert model == ("tuned_x", ("c", "b", "d"))
    last = [trial.name for trial in found.tried][-3:]
    assert last == ["x, 3 layers in float", "tuned_x, 3 layers in float", "tuned_y, 3 layers in float"]


def test_what_fine_tuning_spoils_is_not_kept():
    model, _ = search(Workshop("x", tuned="tuned_", x=0.9, tuned_x=0.5))
    assert model == ("x", ())
    model, found = search(Workshop("x", tuned="tuned_", x=0.9, tuned_x=-1))
    assert model == ("x", ())
    assert found.tried[-1].error == "no kernel for this"


def test_where_int8_is_good_nothing_is_fine_tuned():
    shop = Workshop("x", tuned="tuned_", x=0.999, tuned_x=1.0)
    search(shop)
    assert shop.made == [("x", ())]


def test_a_method_that_raises_is_recorded_and_passed_over():
    model, found = search(Workshop("xy", x=-1, y=0.999))
    assert model == ("y", ())
    assert found.tried[0].error == "no kernel for this"
    assert found.tried[0].to_json() == {"name": "x", "float_share": 0, "error": "no kernel for this"}


def test_where_nothing_works_the_last_error_is_told():
    with pytest.raises(RunError, match="no kernel for this"):
        search(Workshop("x", "y", x=-1, y=-1))
