"""Raw pixels as embeddings: what any encoder has to beat."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..runtime.fidelity import Vectors
from ..runtime.preprocessing import Pixels

# Larger images are no better a floor, and slow to compare.
RAW_SIDE = 16


def embed_raw(pixels: Pixels) -> Vectors:
    """Images uint8 `[N, H, W, 3]` as vectors of 16 × 16 pixels, centered on gray: `[N, 768]`, not of unit length."""
    small = [Image.fromarray(each).resize((RAW_SIDE, RAW_SIDE), Image.Resampling.BOX) for each in pixels]
    return np.stack([np.asarray(each, np.float32).ravel() - 127.5 for each in small])
