"""Two thousand broken images, each in the same process as the others: a vector or a typed error, soon, and no more."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime import Encoder, ImageError
from mutations import make_corpus

MOST_SECONDS = 5.0
MOST_MEGABYTES = 600  # of address space beyond what the process takes without an image

# Runs in a process of its own, which a decoder's crash would end.
JUDGE = """
import json, os, resource, sys, time
from mutations import make_corpus
from byol_edge.runtime import ImageError, Preprocessing, prepare
corpus = make_corpus()
now = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (now + int(sys.argv[1]) * 2**20,) * 2)
preprocessing = Preprocessing(32)
decoded, untyped, slowest = 0, [], (0.0, "")
for name, content in corpus:
    print(name, file=sys.stderr, flush=True)
    start = time.monotonic()
    try:
        pixels = prepare(content, preprocessing)
        assert pixels.shape == (32, 32, 3) and pixels.dtype == "uint8"
        decoded += 1
    except ImageError as error:
        assert "\\n" not in str(error) and len(str(error)) < 500, error
    except BaseException as error:
        untyped.append(f"{name}: {error!r}")
    slowest = max(slowest, (time.monotonic() - start, name))
print(json.dumps({"files": len(corpus), "decoded": decoded, "untyped": untyped, "slowest": slowest}))
"""


def test_every_file_gives_pixels_or_a_typed_error_in_time_and_in_bounded_memory():
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", JUDGE, str(MOST_MEGABYTES)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, f"died at {done.stderr[-2000:]}"
    found = json.loads(done.stdout)
    assert found["untyped"] == []
    assert found["files"] >= 2000
    assert 0.3 <= found["decoded"] / found["files"] <= 0.9
    assert found["slowest"][0] < MOST_SECONDS, found["slowest"]


@pytest.mark.filterwarnings("ignore")
def test_between_broken_files_every_vector_is_still_its_sources(finished_bundle: Path):
    encoder = Encoder(finished_bundle, "fp32.onnx")
    good = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)
    sources = []
    for image, (_, broken) in zip(good, make_corpus()[::20], strict=False):
        sources += [image, broken]
    chunks = list(encoder.stream(sources, batch_size=7))
    vectors = {row: vector for chunk in chunks for row, vector in zip(chunk.rows, chunk.vectors, strict=True)}
    failed = [source for chunk in chunks for source, _ in chunk.errors]
    assert all(isinstance(source, bytes) for source in failed)
    assert all(
        source is sources[row] for chunk in chunks for row, source in zip(chunk.rows, chunk.sources, strict=True)
    )
    assert len(vectors) + len(failed) == len(sources)
    expected = np.concatenate([encoder.run(image[None]) for image in good])
    found = np.stack([vectors[row] for row in range(0, len(sources), 2)])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_embed_names_what_is_wrong_with_a_broken_file(finished_bundle: Path):
    encoder = Encoder(finished_bundle, "fp32.onnx")
    with pytest.raises(ImageError, match="an image given as bytes: unreadable image"):
        encoder.embed([make_corpus()[0][1]])
