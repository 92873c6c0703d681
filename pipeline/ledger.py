"""Ledgers: what a stage made of each shape of a shard, one JSON line per shape.

The first line is a header that names the stage, its settings and the ledgers it was made from, so that any file can
be made again from what is written down; the last is a digest of all before it. Ledgers hold no times and no host
names: equal work gives equal bytes.
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
        header = {"ledger": 1, **self.header}
        limits = self._limits()
        if limits:
            header["limits"] = limits
        lines = [canonical_json(header)]
        lines += [canonical_json(asdict(self.rows[shape])) for shape in sorted(self.rows)]
        return files.seal("\n".join(lines) + "\n")

    def _limits(self) -> dict[str, float]:
        """The smallest limits that shapes ran into: once they are raised, this ledger is due."""
        limits: dict[str, float] = {}
        for row in self.rows.values():
            for name, value in row.limit.items():
                limits[name] = min(value, limits.get(name, value))
        return limits


def write(path: Path, ledger: Ledger) -> None:
    files.write_atomic(path, ledger.text())


def read(path: Path) -> Ledger:
    """Read a ledger. Raises DamagedRecord for a file that is none, or is not as it was written."""
    try:
        header_line, *lines = files.unseal(Path(path).read_text(encoding="utf-8"))[:-1].split("\n")
        header = json.loads(header_line)
        if header.pop("ledger") != 1:
            raise ValueError("it is no ledger")
        header.pop("limits", None)
        rows = [_checked(Row(**json.loads(line))) for line in lines]
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        message = f"the ledger {path} is damaged ({problem}); type the same snakemake command again"
        raise files.DamagedRecord(message) from None
    return Ledger(header, {row.shape: row for row in rows})


def _checked(row: Row) -> Row:
    """A row whose file is the one its key and digest speak of. Raises ValueError for another."""
    if row.file:
        key, _, rest = Path(row.file).name.partition("-")
        digest = rest.partition(".")[0]
        if (key, digest) != (row.key, row.digest):
            raise ValueError(f"the row of {row.shape} names another file, {row.file}")
    return row


def limits_hit(path: Path) -> dict[str, float]:
    """The smallest limits that shapes of a ledger ran into; none in files that are no ledgers."""
    if path.suffix != ".jsonl":
        return {}
    with open(path, encoding="utf-8") as stream:
        header = json.loads(stream.readline() or "{}")
    return header.get("limits", {}) if "ledger" in header else {}


def read_all(paths) -> dict[str, Row]:
    """The rows of several ledgers of one stage (its shards) together."""
    rows: dict[str, Row] = {}
    for path in paths:
        rows.update(read(path).rows)
    return rows


def count_reasons(rows, stage: str | None = None) -> Counter:
    """How often each reason occurs among the rejected rows, of one stage's own rejections or of all."""
    return Counter(r.reason for r in rows if not r.accepted and (stage is None or r.stage == stage))
