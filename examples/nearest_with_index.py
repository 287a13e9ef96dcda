"""The same as nearest.py, with an index on disk that serves millions of vectors (faiss).

pip install faiss-cpu
byol-edge embed bundles/photos photos/ -o photos.npz
python examples/nearest_with_index.py bundles/photos photos.npz photos/mug.jpg
"""

import sys
from pathlib import Path

import faiss
from byol_edge.runtime import load_vectors, open_like
from byol_edge.runtime.text import to_text

if len(sys.argv) != 4:
    sys.exit(__doc__)
bundle, file, query = sys.argv[1:]
content = load_vectors(file)
encoder = open_like(content, bundle)  # the variant and the engine that made them; refused if it is another model

saved = Path(file).with_suffix(".faiss")
if saved.exists() and saved.stat().st_mtime > Path(file).stat().st_mtime:
    index = faiss.read_index(str(saved))
else:
    index = faiss.IndexHNSWFlat(encoder.embedding_size, 32, faiss.METRIC_INNER_PRODUCT)
    index.add(content.vectors)
    faiss.write_index(index, str(saved))

cosines, rows = index.search(encoder.embed(query)[None], 10)
for cosine, row in zip(cosines[0], rows[0], strict=True):
    print(f"{cosine:.3f}  {to_text(content.sources[row])}")
