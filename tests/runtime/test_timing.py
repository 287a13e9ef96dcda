import time

import numpy as np
from byol_edge.runtime.timing import ROUNDS, Timing, time_in_turn


def test_functions_take_turns_and_the_slower_one_is_seen():
    calls = []

    def fast(pixels: np.ndarray) -> None:
        calls.append(("fast", pixels.shape))

    def slow(pixels: np.ndarray) -> None:
        calls.append(("slow", pixels.shape))
        time.sleep(0.002)

    of_fast, of_slow = time_in_turn([fast, slow], image_size=8, batch_size=4, seconds=0.05)
    turns = [name for (name, _), (before, _) in zip(calls[1:], calls, strict=False) if name != before]
    assert ["fast", *turns] == ["fast", "slow"] * ROUNDS
    assert {shape for _, shape in calls} == {(4, 8, 8, 3)}
    assert of_slow.median >= 0.5  # 2 ms over four images
    assert of_fast.median < of_slow.median
    assert of_slow.least <= of_slow.lower <= of_slow.median <= of_slow.upper


def test_times_that_other_work_spreads_are_told():
    assert not Timing(1.1, 1.0, 1.3, 1.0).spreads
    assert Timing(1.6, 1.0, 9.0, 1.0).spreads
