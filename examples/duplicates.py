"""Finds images of a folder that are nearly the same: resized or recompressed copies.

    python examples/duplicates.py bundles/photos photos/ 0.99

The last argument is the lowest cosine of a pair. The right value depends on the network, and is lower for cropped
copies: look at what it finds among your own images before you delete any.
"""

import sys

import numpy as np
from byol_edge.runtime import Encoder, find_images
from byol_edge.runtime.text import to_text

if len(sys.argv) not in (3, 4):
    sys.exit(__doc__)
bundle, folder = sys.argv[1:3]
least = float(sys.argv[3]) if len(sys.argv) > 3 else 0.99

sources, chunks = [], []
for chunk in Encoder(bundle).stream(find_images(folder)):
    for _, error in chunk.errors:
        print(f"left out: {error}", file=sys.stderr)
    sources += chunk.sources
    chunks.append(chunk.vectors)
vectors = np.concatenate(chunks)

for start in range(0, len(vectors), 1024):  # in blocks of rows, because all pairs at once would fill the memory
    cosines = vectors[start : start + 1024] @ vectors.T
    for row, column in np.argwhere(cosines >= least):
        if start + row < column:
            print(f"{cosines[row, column]:.4f}  {to_text(sources[start + row])}  {to_text(sources[column])}")
