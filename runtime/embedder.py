"""A scikit-learn transformer from images to embeddings; `pip install 'byol-edge[sklearn]'`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
except ImportError as error:
    raise ImportError("BundleEmbedder takes scikit-learn: pip install 'byol-edge[sklearn]'") from error

from .encoder import Encoder
from .fidelity import Vectors
from .stream import check_many


class BundleEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """The first step of a Pipeline that takes images: paths, bytes, PIL images or arrays (see Encoder.embed).

    The parameters are Encoder's. There is nothing to fit. The engine is loaded when it is first needed, and
    again in each process that the embedder is sent to.

        pipeline = make_pipeline(BundleEmbedder("bundles/shop"), KNeighborsClassifier(metric="cosine"))
        pipeline.fit(paths, labels).predict(["mug.jpg"])
    """

    def __init__(
        self,
        bundle: str | Path,
        variant: str = "auto",
        backend: str = "auto",
        threads: int | None = None,
        public_key: str | Path | None = None,
    ) -> None:
        self.bundle = bundle
        self.variant = variant
        self.backend = backend
        self.threads = threads
        self.public_key = public_key

    def fit(self, images: Iterable[Any] | None = None, labels: Any = None) -> BundleEmbedder:
        """Opens the bundle, so that a wrong one is reported early. Raises ByolEdgeError."""
        self._open()
        return self

    def transform(self, images: Iterable[Any]) -> Vectors:
        """Embeddings, float32 `[N, D]`, of N images. Raises ImageError at the first that cannot be read."""
        check_many(images)
        return self._open().embed(list(images))

    def _open(self) -> Encoder:
        wanted = (str(self.bundle), self.variant, self.backend, self.threads, self.public_key)
        opened = self.__dict__.get("_opened")
        process = os.getpid()
        if opened is None or opened[:2] != (
            wanted,
            process,
        ):  # parameters can be set anew, and engines do not fork
            encoder = Encoder(*wanted[:4], public_key=self.public_key)
            self._opened = opened = (wanted, process, encoder)
        return opened[2]

    @property
    def _n_features_out(self) -> int:  # scikit-learn names the columns by it
        return self._open().embedding_size

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __getstate__(self) -> dict[str, Any]:
        state: Any = super().__getstate__()
        return {key: value for key, value in state.items() if key != "_opened"}
