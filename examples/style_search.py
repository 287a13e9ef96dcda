"""Searches pictures by style: embeds a folder, and draws a contact sheet of the nearest to some of its pictures.

    byol-edge train paintings/ --out runs/paintings
    byol-edge export runs/paintings --int8 --out bundles/paintings
    python examples/style_search.py bundles/paintings paintings/ neighbors.png

Each row of the sheet has a picture (first, framed) and the seven most similar ones, with their cosines. What "similar"
means is what the network learned: if `byol-edge inspect` calls its run doubtful, mostly color and background.
"""

import sys

import numpy as np
from byol_edge.runtime import Encoder, find_images
from byol_edge.runtime.preprocessing import open_image
from PIL import Image, ImageDraw, ImageOps

ROWS, NEIGHBORS, SIDE, GAP, LINE = 8, 7, 128, 6, 14

if len(sys.argv) != 4:
    sys.exit(__doc__)
bundle, folder, sheet_file = sys.argv[1:]
encoder = Encoder(bundle)
sources, chunks = [], []
for chunk in encoder.stream(find_images(folder), errors="skip"):
    sources += chunk.sources
    chunks.append(chunk.vectors)
vectors = np.concatenate(chunks)
if len(sources) <= NEIGHBORS:
    sys.exit(f"{folder}: {len(sources)} pictures that can be read; it takes more than {NEIGHBORS}")

queries = np.random.default_rng(0).permutation(len(sources))[:ROWS]
width, height = (NEIGHBORS + 1) * (SIDE + GAP) + GAP, len(queries) * (SIDE + LINE + GAP) + GAP
sheet = Image.new("RGB", (width, height), "white")
draw = ImageDraw.Draw(sheet)
for line, query in enumerate(queries):
    cosines = vectors @ vectors[query]
    cosines[query] = 2  # itself comes first
    for column, row in enumerate(np.argsort(-cosines)[: NEIGHBORS + 1]):
        left, top = GAP + column * (SIDE + GAP), GAP + line * (SIDE + LINE + GAP)
        picture = ImageOps.pad(open_image(sources[row]), (SIDE, SIDE), color="white")
        sheet.paste(picture, (left, top))
        if column == 0:
            draw.rectangle((left - 3, top - 3, left + SIDE + 2, top + SIDE + 2), outline="black", width=2)
        else:
            draw.text((left, top + SIDE + 1), f"{cosines[row]:.3f}", fill="black")
sheet.save(sheet_file)
print(f"{sheet_file}: {len(queries)} pictures and the {NEIGHBORS} nearest of {len(sources)} to each")
