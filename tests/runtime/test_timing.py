import time

import numpy as np

from byol_edge.runtime.timing import time_interleaved


def test_functions_take_turns_and_the_slower_one_is_seen():
    calls = []

    def fast(pixels: np.ndarray) -> None:
        calls.append(("fast", pixels.shape))

    def slow(pixels: np.ndarray) -> None:
        calls.append(("slow", pixels.shape))
        time.sleep(0.002)

    of_fast, of_slow = time_interleaved([fast, slow], image_size=8, batch_size=4, seconds=0.05)
    assert calls[6:10] == [("fast", (4, 8, 8, 3)), ("slow", (4, 8, 8, 3))] * 2
    assert of_slow.median >= 0.5  # 2 ms over four images
    assert of_fast.median < of_slow.median
    assert of_slow.lower <= of_slow.median <= of_slow.upper
