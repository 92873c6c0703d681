"""Ledgers: what a stage made of each shape of a shard, one JSON line per shape.

The first line is a header that names the stage, its settings and the ledgers it was made from, so that any file can
be made again from what is written down. Ledgers hold no times and no host names: equal work gives equal bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.settings import canonical_json

ACCEPTED = ("ok", "repaired")


@dataclass(frozen=True)
class Row:
    """One shape at one stage.

    shape: "category/id". status: ok, repaired or rejected. stage: where a rejected shape was first rejected.
    key, file, digest, size: the stored file; empty for shapes rejected earlier.
    limit: which of `limits` the shape ran into here, with its value, as {"seconds": 180.0}; with a higher one it is
    tried again.
    """

    shape: str
    status: str
    key: str = ""
    file: str = ""
    digest: str = ""
    size: int = 0
    reason: str = ""
    stage: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
    limit: dict[str, float] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        return self.status in ACCEPTED


@dataclass(frozen=True)
class Ledger:
    """header: {"stage", "settings" (file), "inputs" {name: ledger file}}; rows by shape, sorted."""

    header: dict[str, Any]
    rows: dict[str, Row]

    def text(self) -> str:
        lines = [canonical_json({"ledger": 1, **self.header})]
        lines += [canonical_json(asdict(self.rows[shape])) for shape in sorted(self.rows)]
        return "\n".join(lines) + "\n"


def write(path: Path, ledger: Ledger) -> None:
    files.write_atomic(path, ledger.text())


def read(path: Path) -> Ledger:
    """Read a ledger. Raises ValueError for a file that is not one."""
    try:
        with open(path, encoding="utf-8") as stream:
            header = json.loads(stream.readline())
            if header.pop("ledger") == 1:
                rows = [Row(**json.loads(line)) for line in stream]
                return Ledger(header, {row.shape: row for row in rows})
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise ValueError(f"{path} is not a ledger; delete it and run the same command again")


def read_all(paths) -> dict[str, Row]:
    """The rows of several ledgers of one stage (its shards) together."""
    rows: dict[str, Row] = {}
    for path in paths:
        rows.update(read(path).rows)
    return rows


def count_reasons(rows, stage: str | None = None) -> Counter:
    """How often each reason occurs among the rejected rows, of one stage's own rejections or of all."""
    return Counter(r.reason for r in rows if not r.accepted and (stage is None or r.stage == stage))
