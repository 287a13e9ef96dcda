"""The images most like one image, with numpy alone.

python examples/nearest.py bundles/photos photos/ photos/mug.jpg
"""

import sys

import numpy as np
from byol_edge.runtime import Encoder, find_images

bundle, folder, query = sys.argv[1:4]
encoder = Encoder(bundle)
paths = find_images(folder)
vectors = encoder.embed(paths)

cosines = vectors @ encoder.embed(query)  # vectors have unit length
for row in np.argsort(-cosines)[:10]:
    print(f"{cosines[row]:.3f}  {paths[row]}")
