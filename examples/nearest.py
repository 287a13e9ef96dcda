"""Finds the images that are most similar to an image, with numpy alone.

python examples/nearest.py bundles/photos photos/ photos/mug.jpg
"""

import sys

import numpy as np
from byol_edge.runtime import Encoder, find_images
from byol_edge.runtime.text import to_text

if len(sys.argv) != 4:
    sys.exit(__doc__)
bundle, folder, query = sys.argv[1:]
encoder = Encoder(bundle)
chunks = list(encoder.stream(find_images(folder), errors="skip"))  # images that cannot be read are left out
sources = [source for chunk in chunks for source in chunk.sources]
vectors = np.concatenate([chunk.vectors for chunk in chunks])

cosines = vectors @ encoder.embed(query)  # vectors have unit length
for row in np.argsort(-cosines)[:10]:
    print(f"{cosines[row]:.3f}  {to_text(sources[row])}")
