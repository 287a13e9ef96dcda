"""How certain a mean is: the one kind of interval of this project."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..runtime.interval import Interval

RESAMPLES = 2000


def bootstrap_interval(values: NDArray[np.float64]) -> Interval:
    """The mean of independent values and its 95% percentile interval over 2,000 resamples, always the same ones.

    Of differences of paired values it is a paired interval.
    """
    rng = np.random.default_rng(0)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(RESAMPLES)]
    lower, upper = np.percentile(means, [2.5, 97.5])
    return Interval(float(values.mean()), float(lower), float(upper))
