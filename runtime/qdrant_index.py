"""Vectors in a Qdrant collection, of a server or embedded; `pip install 'byol-edge[databases]'`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from .errors import ByolEdgeError
from .fidelity import Vectors
from .identity import Maker, to_metadata
from .index import check_size, naming
from .nearest import Neighbor


class QdrantIndex:
    """A collection, of a `QdrantClient`, of points with a vector and the payload `source`; see index.Index.

    What made the vectors stands in the collection's metadata. A point's id is made of its source.
    """

    def __init__(self, client: Any, collection: str) -> None:
        self.name = f"Qdrant: collection {collection}"
        self._client = client
        self._collection = collection

    def find_maker(self) -> Maker | None:
        with naming(self.name, "Qdrant"):
            if not self._client.collection_exists(self._collection):
                return None
            return Maker.from_metadata(self._client.get_collection(self._collection).config.metadata or {})

    def insert(self, sources: Sequence[str], vectors: Vectors, made_by: Maker) -> None:
        with naming(self.name, "Qdrant"):
            from qdrant_client import models

            if not self._client.collection_exists(self._collection):
                self._client.create_collection(
                    self._collection,
                    models.VectorParams(size=vectors.shape[1], distance=models.Distance.COSINE),
                    metadata=to_metadata(made_by),
                )
            self._check_size(vectors.shape[1])
            ids: list[Any] = [str(uuid5(NAMESPACE_URL, source)) for source in sources]
            payloads = [{"source": source} for source in sources]
            self._client.upsert(self._collection, models.Batch(ids=ids, vectors=vectors.tolist(), payloads=payloads))

    def find_nearest(self, query: Vectors, count: int) -> list[Neighbor]:
        with naming(self.name, "Qdrant"):
            if not self._client.collection_exists(self._collection):
                raise ByolEdgeError("there is no such collection; add images first")
            self._check_size(len(query))
            found = self._client.query_points(self._collection, query=query.tolist(), limit=count, with_payload=True)
            return [Neighbor(each.payload["source"], each.score) for each in found.points]

    def _check_size(self, size: int) -> None:
        held = self._client.get_collection(self._collection).config.params.vectors.size
        check_size(held, size)
