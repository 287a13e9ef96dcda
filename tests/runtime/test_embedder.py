import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from byol_edge.runtime import BundleError, Encoder, find_images
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


def test_a_wrong_bundle_is_told_by_fit(tmp_path: Path):
    with pytest.raises(BundleError, match="no such folder"):
        BundleEmbedder(tmp_path / "gone").fit()
