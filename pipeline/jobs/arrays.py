"""Reading the arrays of many shapes for training and inference, from the ledgers of their shards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import ledger
from pipeline.jobs.work import read_value
from pipeline.ledger import Row
from pipeline.shape_arrays import shape_arrays
from pipeline.store import Store

Table = Mapping[str, tuple[Row, str]]


def read_tables(results: Path, instances: Iterable[str], shards: Iterable[tuple[str, str]]) -> dict[str, Table]:
    """Instance → shape → (row, ledger) over the named shards (category, shard)."""
    shards = list(shards)
    tables: dict[str, Table] = {}
    for instance in instances:
        table: dict[str, tuple[Row, str]] = {}
        for category, shard in shards:
            path = results / "data" / instance / category / f"{shard}.jsonl"
            table.update({shape: (row, str(path)) for shape, row in ledger.read(path).rows.items()})
        tables[instance] = table
    return tables


def first_rejection(tables: Mapping[str, Table], shape: str) -> Row | None:
    """The row of the first stage that rejected a shape, or None."""
    return next((table[shape][0] for table in tables.values() if not table[shape][0].accepted), None)


class ShapeReader(Sequence):
    """The flat arrays of shapes, read from the store when they are asked for."""

    def __init__(self, tables: Mapping[str, Table], shapes: Sequence[str], store: Store) -> None:
        self._tables, self._shapes, self._store = tables, shapes, store

    def __len__(self) -> int:
        return len(self._shapes)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return ShapeReader(self._tables, self._shapes[index], self._store)
        return shape_arrays(self.products(self._shapes[index]))

    def products(self, shape: str) -> dict[str, Any]:
        """Instance → arrays of one shape."""
        return {i: read_value(*table[shape], self._store).value for i, table in self._tables.items()}
