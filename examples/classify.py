"""A classifier from ten labeled images a class: k nearest neighbors on embeddings.

    pip install '.[sklearn]'
    python examples/classify.py bundles/photos labeled/

`labeled/` holds a folder a class. Ten images of each are learned from, the others are what the accuracy is measured on.
"""

import sys
from collections import Counter

import numpy as np
from byol_edge.runtime import find_images
from byol_edge.runtime.embedder import BundleEmbedder
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

A_CLASS = 10

if len(sys.argv) != 3:
    sys.exit(__doc__)
bundle, folder = sys.argv[1:]
paths = find_images(folder)
labels = [path.parent.name for path in paths]
classes = Counter(labels)
few = [name for name, count in classes.items() if count <= A_CLASS]
if few:
    sys.exit(f"{few[0]}: needs more than {A_CLASS} images, so that some are left to test with")

order = np.random.default_rng(0).permutation(len(paths))
taught, asked = [], []
seen: Counter[str] = Counter()
for row in order:
    seen[labels[row]] += 1
    (taught if seen[labels[row]] <= A_CLASS else asked).append(row)

classifier = make_pipeline(BundleEmbedder(bundle), KNeighborsClassifier(5, metric="cosine", weights="distance"))
classifier.fit([paths[row] for row in taught], [labels[row] for row in taught])
accuracy = classifier.score([paths[row] for row in asked], [labels[row] for row in asked])
most = max(Counter(labels[row] for row in asked).values()) / len(asked)
print(f"{accuracy:.3f} of {len(asked)} images right; always naming the largest class would be right for {most:.3f}")
