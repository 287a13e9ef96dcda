"""What changes from step to step: tau and the learning rate."""

import math


def tau(step: int, steps: int, base: float) -> float:
    """τ = 1 − (1 − base)·(1 + cos(πk/K))/2 (paper, appendix B): `base` at step 0, 1 at `steps`.

    `step` counts optimizer steps.
    """
    return 1 - (1 - base) * (1 + math.cos(math.pi * step / steps)) / 2


def learning_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """A straight line from 0 to `peak` over `warmup` steps, then half a cosine down to 0 at `steps`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2
