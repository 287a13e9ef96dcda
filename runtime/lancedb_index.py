"""Vectors in a LanceDB table; `pip install 'byol-edge[databases]'`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .errors import ByolEdgeError
from .fidelity import Vectors
from .identity import Maker
from .index import check_size, naming
from .nearest import Neighbor
from .vectors import read_maker, to_table


class LanceDBIndex:
    """A table with the columns `source` and `vector` of a database that `lancedb.connect` opened; see index.Index.

    What made the vectors stands in the metadata of the table's schema, as in a .parquet file.
    """

    def __init__(self, database: Any, table: str) -> None:
        self.name = f"{database.uri}: table {table}"
        self._database = database
        self._table = table

    def find_maker(self) -> Maker | None:
        with naming(self.name, "LanceDB"):
            table = self._open()
            return None if table is None else read_maker(table.schema.metadata)

    def insert(self, sources: Sequence[str], vectors: Vectors, made_by: Maker) -> None:
        with naming(self.name, "LanceDB"):
            rows = to_table(sources, vectors, made_by)
            table = self._open()
            if table is None:
                self._database.create_table(self._table, rows)
                return
            self._check_size(table, vectors.shape[1])
            # After a kill, or where an image has changed, its vector takes the place of the old one.
            table.merge_insert("source").when_matched_update_all().when_not_matched_insert_all().execute(rows)

    def find_nearest(self, query: Vectors, count: int) -> list[Neighbor]:
        with naming(self.name, "LanceDB"):
            table = self._open()
            if table is None:
                raise ByolEdgeError("there is no such table; add images first")
            self._check_size(table, len(query))
            found = table.search(query, vector_column_name="vector").distance_type("cosine").limit(count).to_list()
            return [Neighbor(each["source"], 1 - each["_distance"]) for each in found]

    def _open(self) -> Any:
        """The table, None if there is none."""
        try:
            return self._database.open_table(self._table)
        except (ValueError, FileNotFoundError) as error:
            if "not found" not in str(error):
                raise
            return None

    def _check_size(self, table: Any, size: int) -> None:
        held = table.schema.field("vector").type.list_size
        check_size(held, size)
