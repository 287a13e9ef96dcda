import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from byol_edge.runtime import BundleError, Encoder, UsageError, find_images
from byol_edge.runtime.embedder import BundleEmbedder
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline


def test_it_gives_what_the_encoder_gives(finished_bundle: Path, photos: Path):
    paths = find_images(photos)[:10]
    vectors = BundleEmbedder(finished_bundle).fit_transform(paths)
    assert np.array_equal(vectors, Encoder(finished_bundle).embed(paths))
    assert BundleEmbedder(finished_bundle).transform(iter(paths)).shape == (10, 256)


def test_it_works_in_a_pipeline_and_across_processes(finished_bundle: Path, photos: Path):
    paths = find_images(photos)
    labels = [path.parent.name for path in paths]
    pipeline = make_pipeline(BundleEmbedder(finished_bundle), KNeighborsClassifier(3, metric="cosine"))
    assert pipeline.fit(paths, labels).score(paths, labels) > 0.5
    assert cross_val_score(pipeline, paths, labels, cv=2, n_jobs=2).shape == (2,)
    names: Any = pipeline[:1].get_feature_names_out()
    assert len(names) == 256


def test_it_is_cloned_pickled_and_set_like_others(finished_bundle: Path, photos: Path):
    paths = find_images(photos)[:3]
    embedder = BundleEmbedder(finished_bundle, "fp32").fit()
    expected = embedder.transform(paths)
    copies: list[Any] = [clone(embedder), pickle.loads(pickle.dumps(embedder))]
    for same in copies:
        assert same.get_params() == embedder.get_params()
        assert np.array_equal(same.transform(paths), expected)
    assert not np.array_equal(embedder.set_params(variant="int8").transform(paths), expected)


def test_one_image_is_not_taken_for_many(finished_bundle: Path):
    for one in ("mug.jpg", np.zeros((9, 9, 3), np.uint8)):
        with pytest.raises(UsageError, match="is one image"):
            BundleEmbedder(finished_bundle).transform(one)


def test_a_forked_process_opens_the_bundle_again(finished_bundle: Path, photos: Path):
    # OpenVINO cannot run in one: tests/runtime/test_encoder.py.
    code = f"""
import os, signal
from byol_edge.runtime import find_images
from byol_edge.runtime.embedder import BundleEmbedder
paths = find_images({str(photos)!r})
embedder = BundleEmbedder({str(finished_bundle)!r}, "fp32", "onnxruntime")
expected = embedder.transform(paths).tobytes()
child = os.fork()
if not child:
    signal.alarm(30)
    os._exit(0 if embedder.transform(paths).tobytes() == expected else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_wrong_bundle_is_told_by_fit(tmp_path: Path):
    with pytest.raises(BundleError, match="no such folder"):
        BundleEmbedder(tmp_path / "gone").fit()
