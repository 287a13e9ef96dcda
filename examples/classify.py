"""A classifier trained on ten labeled images per class: k nearest neighbors on embeddings.

    pip install '.[sklearn]'
    python examples/classify.py bundles/photos labeled/

`labeled/` has one folder per class. Ten images of each are learned from; the accuracy is measured on the others.
"""

import sys
from collections import Counter

import numpy as np
from byol_edge.runtime import find_images
from byol_edge.runtime.embedder import BundleEmbedder
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

PER_CLASS = 10

if len(sys.argv) != 3:
    sys.exit(__doc__)
bundle, folder = sys.argv[1:]
paths = find_images(folder)
labels = [path.parent.name for path in paths]
classes = Counter(labels)
few = [name for name, count in classes.items() if count <= PER_CLASS]
if few:
    sys.exit(f"{few[0]}: needs more than {PER_CLASS} images, so that some are left to test with")

train, test = [], []
seen: Counter[str] = Counter()
for row in np.random.default_rng(0).permutation(len(paths)):
    seen[labels[row]] += 1
    (train if seen[labels[row]] <= PER_CLASS else test).append(row)

classifier = make_pipeline(BundleEmbedder(bundle), KNeighborsClassifier(5, metric="cosine", weights="distance"))
classifier.fit([paths[row] for row in train], [labels[row] for row in train])
accuracy = classifier.score([paths[row] for row in test], [labels[row] for row in test])
most = max(Counter(labels[row] for row in test).values()) / len(test)
print(f"{accuracy:.3f} of {len(test)} images right; always naming the largest class would be right for {most:.3f}")
