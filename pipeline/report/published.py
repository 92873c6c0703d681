"""Published numbers to print beside ours: `resources/published.csv`, every one with its source and its conditions.

A row is one number of one paper, repository or thread. status: confirmed (read where it was produced) or
repeated_elsewhere (read in a document that carries it over); numbers that nobody could check are not in the file.
profile, key and statistic say with which column of our tables it may stand, and are empty where no profile measures
what it measures. value is as printed: unit_or_scale belongs to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.report.cells import MISSING, Block, Cell, Column, Metric, Table

if TYPE_CHECKING:
    import pandas as pd

FILE = "published.csv"
STATUSES = {"confirmed": "", "repeated_elsewhere": "as repeated elsewhere"}
CONDITIONS = ["method", "variant", "task", "dataset", "train_data", "source", "status"]


def read_published(resources: Path) -> pd.DataFrame:
    """All rows, text but for `value`. Raises ValueError for a row without a source or of another status."""
    import pandas as pd

    table = pd.read_csv(Path(resources) / FILE, dtype=str, keep_default_na=False)
    bad = table[(table["source"] == "") | ~table["status"].isin(list(STATUSES))]
    if len(bad):
        raise ValueError(f"{FILE}: {len(bad)} rows have no source or an unknown status, first row {bad.index[0] + 2}")
    return table.assign(value=table["value"].astype(float))


def published_for(
    table: pd.DataFrame, profile: str, category: str = "mean", statistic: str = "mean"
) -> list[tuple[Mapping[str, str], Mapping[str, float]]]:
    """(conditions, row key → value as printed) of every published experiment that a profile can stand beside.

    category: a name, or "mean" for the mean that the paper prints over its categories. The keys of the conditions are
    CONDITIONS; each value is the first of its kind.
    """
    rows = table[(table["profile"] == profile) & (table["category"] == category) & (table["statistic"] == statistic)]
    return [
        (dict(zip(CONDITIONS, labels, strict=True)), group.drop_duplicates("key").set_index("key")["value"].to_dict())
        for labels, group in rows.groupby(CONDITIONS, sort=False)
    ]


def published_table(table: pd.DataFrame, profile: str, metrics: Sequence[Metric]) -> Table | None:
    """The published means of a profile's metrics, in the columns of our own table; None where there are none."""
    found = [
        (conditions, values)
        for conditions, values in published_for(table, profile)
        if any(metric.key in values for metric in metrics)
    ]
    if not found:
        return None
    rows = tuple(
        (
            Cell(" ".join(filter(None, (c["method"], f"({c['variant']})" if c["variant"] else "")))),
            *(Cell(f"{values[m.key]:g}" if m.key in values else MISSING) for m in metrics),
            Cell(", ".join(filter(None, (c["task"], c["dataset"], c["train_data"])))),
            Cell(", ".join(filter(None, (c["source"], STATUSES[c["status"]])))),
        )
        for c, values in found
    )
    columns = (
        Column("Published", numeric=False),
        *(Column(metric.head, note="as printed there") for metric in metrics),
        Column("Conditions", numeric=False),
        Column("Source", numeric=False),
    )
    return Table(columns, (Block(rows),))
