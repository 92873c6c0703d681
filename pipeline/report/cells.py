"""What a table of the report is made of: metrics as columns, cells of text, blocks of rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

TIMES = "\u00d7"
MISSING = "\u2013"
SQUARES = ("chamfer_l2", "accuracy2", "completeness2")
DIGITS = {"share": 3, "distance": 5, "square": 7}
"""Decimals of raw values."""


class Profile(Protocol):
    """What is read of an evaluation profile: its paper, its mean, the keys it shows, its factors when printing them,
    and what every key of its rows means."""

    paper: str
    mean: str
    shown: tuple[str, ...]
    print_scale: Mapping[str, float]
    columns: Mapping[str, Meaning]


class Meaning(Protocol):
    """What is read of a metric's definition."""

    title: str
    higher_is_better: bool


@dataclass(frozen=True)
class Metric:
    """A metric as a column: raw values are printed times `scale`."""

    key: str
    title: str
    higher_is_better: bool
    scale: float = 1.0

    @property
    def head(self) -> str:
        factor = f" {TIMES}{self.scale:g}" if self.scale != 1 else ""
        return f"{self.title}{factor} {'↑' if self.higher_is_better else '↓'}"

    def print(self, value: float) -> str:
        kind = "share" if self.higher_is_better else "square" if self.key in SQUARES else "distance"
        digits = max(0, DIGITS[kind] - round(np.log10(self.scale)))
        return f"{value * self.scale:.{digits}f}" if np.isfinite(value) else MISSING


@dataclass(frozen=True)
class Column:
    label: str
    numeric: bool = True
    note: str = ""


@dataclass(frozen=True)
class Cell:
    """text as printed; note: what the mouse shows, such as the raw value; best: of those it is compared with."""

    text: str
    note: str = ""
    best: bool = False


@dataclass(frozen=True)
class Block:
    """Rows that belong together, under a heading of their own if there is one; the first cell names the row."""

    rows: tuple[tuple[Cell, ...], ...]
    label: str = ""
    total: bool = False


@dataclass(frozen=True)
class Group:
    """A heading over `width` columns."""

    label: str
    width: int


@dataclass(frozen=True)
class Table:
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    caption: str = ""
    groups: tuple[Group, ...] = ()

    @property
    def rows(self) -> tuple[tuple[Cell, ...], ...]:
        """The rows of all blocks."""
        return tuple(row for block in self.blocks for row in block.rows)


IOU = Metric("iou", "IoU", higher_is_better=True)
CHAMFER_L1 = Metric("chamfer_l1", "Chamfer-L1", higher_is_better=False)


def metrics_of(
    keys: Iterable[str], meanings: Mapping[str, Meaning], scale: Mapping[str, float] | None = None
) -> list[Metric]:
    """The metrics of these keys as columns, in this order."""
    scale = scale or {}
    return [Metric(k, meanings[k].title, meanings[k].higher_is_better, scale.get(k, 1.0)) for k in keys]


def compared(values: Sequence[float], metric: Metric, notes: Sequence[str] = ()) -> list[Cell]:
    """Cells of values that compete; what prints like the best is marked, so that a tie in print is a tie."""
    texts = [metric.print(value) for value in values]
    finite = [value for value in values if np.isfinite(value)]
    best = metric.print(max(finite) if metric.higher_is_better else min(finite)) if finite else None
    return [Cell(text, note, text == best) for text, note in zip(texts, notes or [""] * len(texts), strict=True)]
