"""Tables of the report: from frames of numbers to cells of text. No HTML here.

Frames, all of one profile but where said otherwise: `rows`, the wide table with one row per method and test shape;
`summary`, one row per method and metric, and `categories`, one row per method, category and metric, with asked, scored,
undefined and the means `macro_penalised`, `micro_dropped`, ...; `rejected`, one row per rejected shape with stage,
category, id and reason. Values are raw; a profile's scale is applied only here, when printing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.report.cells import MISSING, Block, Cell, Column, Group, Metric, Table, compared

if TYPE_CHECKING:
    import pandas as pd

LISTED = 1000
"""Rejected shapes named one by one in the page; more would make it slow to open."""

NUMBER = re.compile(r"-?\d+(?:[.,]\d+)*(?:e[+-]?\d+)?")

MEANS = {"macro": "Mean of category means (macro)", "micro": "Mean over shapes (micro)"}


def rows_of_one_profile(rows: pd.DataFrame, profiles: Sequence[str]) -> pd.DataFrame:
    """Of rows of many profiles, those of the first of `profiles` that has an IoU, else of the first."""
    scored = [name for name in profiles if rows.loc[rows["profile"] == name, "iou"].notna().any()]
    return rows[rows["profile"] == (scored or list(profiles))[0]]


def once(parts: Iterable[tuple[str, Table]]) -> list[Table]:
    """Tables of named profiles, each different one once; its caption tells all profiles in which it is the same."""
    profiles: dict[Table, list[str]] = {}
    for name, table in parts:
        profiles.setdefault(table, []).append(name)
    return [replace(t, caption=f"{t.caption} ({', '.join(names)})") for t, names in profiles.items()]


def comparison_table(summary: pd.DataFrame, methods: Sequence[str], metrics: Sequence[Metric], failures: str) -> Table:
    """Macro and micro means of each method with its coverage. failures: "penalised" or "dropped"."""
    summary = summary[summary["metric"].isin([metric.key for metric in metrics])]
    blocks = []
    for average, label in MEANS.items():
        columns = [_mean_cells(summary, methods, metric, f"{average}_{failures}") for metric in metrics]
        rows = zip([Cell(method) for method in methods], _coverage(summary, methods), *columns, strict=True)
        blocks.append(Block(tuple(rows), f"{label}, failures {failures}"))
    columns = (
        Column("Method", numeric=False),
        Column("Scored", note="test shapes that could be measured, of those asked for"),
        *(Column(metric.head) for metric in metrics),
    )
    return Table(columns, tuple(blocks))


def metric_table(summary: pd.DataFrame, methods: Sequence[str], metric: Metric) -> Table:
    """Every mean of one metric: macro, micro and median, failures penalised and dropped."""
    kinds = [(average, failures) for failures in ("penalised", "dropped") for average in (*MEANS, "median")]
    columns = [_mean_cells(summary, methods, metric, f"{average}_{failures}") for average, failures in kinds]
    coverage = _coverage(summary[summary["metric"] == metric.key], methods)
    rows = zip([Cell(method) for method in methods], coverage, *columns, strict=True)
    return Table(
        (Column("Method", numeric=False), Column("Scored"), *(Column(average) for average, _ in kinds)),
        (Block(tuple(rows)),),
        caption=metric.head,
        groups=(Group("", 2), Group("failures penalised", 3), Group("failures dropped", 3)),
    )


def category_table(
    categories: pd.DataFrame,
    summary: pd.DataFrame,
    methods: Sequence[str],
    metric: Metric,
    names: Mapping[str, str] | None = None,
) -> Table:
    """One metric, categories by methods, failures penalised; the best of each row is marked. Means at the end."""
    frame = categories[categories["metric"] == metric.key]
    rows = []
    for category in sorted(frame["category"].unique()):
        part = frame[frame["category"] == category]
        values = [_only(part[part["method"] == m], "micro_penalised") for m in methods]
        cells = compared(values, metric, [f"scored {cell.text}" for cell in _coverage(part, methods)])
        rows.append((Cell(named(category, names or {})), Cell(str(int(part["asked"].max()))), *cells))
    shapes = str(sum(int(row[1].text) for row in rows))
    means = [
        (Cell(f"{average} mean"), Cell(shapes), *_mean_cells(summary, methods, metric, f"{average}_penalised"))
        for average in MEANS
    ]
    return Table(
        (Column("Category", numeric=False), Column("Shapes"), *(Column(method) for method in methods)),
        (Block(tuple(rows)), Block(tuple(means), total=True)),
        caption=metric.head,
    )


def rejected_counts(rejected: pd.DataFrame) -> Table:
    """How many shapes each stage rejected and why, the most frequent reason first."""
    columns = (Column("Stage", numeric=False), Column("Reason", numeric=False), Column("Shapes"))
    return _reason_counts(rejected, "stage", distinct(rejected["stage"]), columns, "Rejected shapes")


def failed_counts(rows: pd.DataFrame, methods: Sequence[str]) -> Table:
    """Test shapes for which a method gave nothing that could be measured, by reason."""
    failed = rows[rows["status"] != "ok"]
    columns = (Column("Method", numeric=False), Column("Failure", numeric=False), Column("Test shapes"))
    reasons = failed["reason"].where(failed["reason"].fillna("") != "", failed["status"])
    return _reason_counts(failed.assign(reason=reasons), "method", methods, columns, "Failed reconstructions")


def remark_counts(rows: pd.DataFrame, methods: Sequence[str]) -> Table:
    """Test shapes that were measured although something is wrong with the mesh, by remark."""
    remarked = rows[(rows["status"] == "ok") & (rows["reason"].fillna("") != "")]
    columns = (Column("Method", numeric=False), Column("Remark", numeric=False), Column("Test shapes"))
    return _reason_counts(remarked, "method", methods, columns, "Measured with a remark")


def _reason_counts(
    frame: pd.DataFrame, by: str, order: Sequence[str], columns: tuple[Column, ...], caption: str
) -> Table:
    """Counts of `reason` for each value of `by`, and their sum; no blocks for an empty frame."""
    rows = [
        (Cell(value), Cell(reason), Cell(str(count)))
        for value in order
        for reason, count in grouped_reasons(frame.loc[frame[by] == value, "reason"])
    ]
    total = ((Cell("all"), Cell(""), Cell(str(len(frame)))),)
    return Table(columns, (Block(tuple(rows)), Block(total, total=True)) if rows else (), caption)


def grouped_reasons(reasons: Iterable[str]) -> list[tuple[str, int]]:
    """Reasons and counts, most frequent first.

    Texts that are equal but for their numbers are counted together, an ellipsis in place of the numbers.
    """
    groups: dict[str, list[str]] = {}
    for reason in reasons:
        groups.setdefault(NUMBER.sub("…", reason), []).append(reason)
    counted = [(texts[0] if len(set(texts)) == 1 else pattern, len(texts)) for pattern, texts in groups.items()]
    return sorted(counted, key=lambda group: (-group[1], group[0]))


def rejected_listing(rejected: pd.DataFrame, names: Mapping[str, str] | None = None) -> Table:
    """The first `LISTED` rejected shapes, one row each."""
    rows = tuple(
        (Cell(str(row.id)), Cell(named(row.category, names or {})), Cell(row.stage), Cell(row.reason))
        for row in rejected.head(LISTED).itertuples()
    )
    labels = ("Shape", "Category", "Stage", "Reason")
    return Table(tuple(Column(label, numeric=False) for label in labels), (Block(rows),))


def cost_table(cost: pd.DataFrame) -> Table:
    """Seconds and memory of each stage, and the sum; `cost` has the columns stage, shapes, seconds, peak_mb."""
    columns = (
        Column("Stage", numeric=False),
        Column("Shapes"),
        Column("Time", note="summed over all workers"),
        Column("Seconds per shape"),
        Column("Peak memory, MB", note="the largest of one process"),
    )
    rows = tuple(
        (
            Cell(str(row.stage)),
            Cell(str(int(row.shapes))),
            Cell(duration(row.seconds)),
            Cell(f"{row.seconds / row.shapes:.3f}" if row.shapes else MISSING),
            Cell(_whole(row.peak_mb)),
        )
        for row in cost.itertuples()
    )
    total = (
        Cell("all"),
        Cell(""),
        Cell(duration(cost["seconds"].sum())),
        Cell(""),
        Cell(_whole(cost["peak_mb"].max())),
    )
    return Table(columns, (Block(rows), Block((total,), total=True)))


def figures_table(figures: pd.DataFrame) -> Table:
    """What methods noted of their own reconstructions; `figures` has the columns method, figure, value."""
    columns = (
        Column("Method", numeric=False),
        Column("Figure", numeric=False),
        *(Column(label) for label in ("Shapes", "Least", "Median", "Most")),
    )
    rows = []
    for (method, figure), values in figures.groupby(["method", "figure"], sort=False)["value"]:
        numbers = (values.min(), values.median(), values.max())
        words = (Cell(str(method)), Cell(str(figure).replace("_", " ")), Cell(str(len(values))))
        rows.append((*words, *(Cell(f"{number:.3g}") for number in numbers)))
    return Table(columns, (Block(tuple(rows)),))


def duration(seconds: float) -> str:
    """For example "8.2 s", "3 min 05 s", "2 h 07 min"."""
    if not np.isfinite(seconds):
        return MISSING
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def words_table(words: Mapping[str, Any]) -> Table:
    """Names and values, such as the versions of libraries."""
    columns = (Column("Name", numeric=False), Column("Value", numeric=False))
    return Table(columns, (Block(tuple((Cell(str(name)), Cell(str(value))) for name, value in words.items())),))


def select_gallery(rows: pd.DataFrame, each: int = 2) -> list[tuple[str, str, str]]:
    """(kind, category, id) of the test shapes to show: best, median and worst by mean IoU over the methods.

    each: how many of a kind. A method that failed counts as IoU 0, one whose IoU is undefined not at all. No shape
    comes twice.
    """
    scores = rows["iou"].where(rows["status"] == "ok", 0.0)
    means = scores.groupby([rows["category"], rows["id"]]).mean().dropna()
    ranked = [shape for shape, _ in sorted(means.items(), key=lambda item: (-item[1], item[0]))]
    middle, last = max(0, (len(ranked) - each) // 2), max(0, len(ranked) - each)
    kinds = {"best": ranked[:each], "median": ranked[middle : middle + each], "worst": ranked[last:]}
    chosen: dict[tuple[str, str], str] = {}
    for kind, shapes in kinds.items():
        for shape in shapes:
            chosen.setdefault(shape, kind)
    return [(kind, category, shape) for (category, shape), kind in chosen.items()]


def named(category: str, names: Mapping[str, str]) -> str:
    """A category's name with its id, or the id alone."""
    return f"{names[category]} ({category})" if category in names else str(category)


def distinct(values: pd.Series) -> list[str]:
    """Distinct values as they first appear."""
    return list(dict.fromkeys(values))


def _mean_cells(summary: pd.DataFrame, methods: Sequence[str], metric: Metric, column: str) -> list[Cell]:
    """One mean of every method; the note tells the raw value and over how many shapes it goes."""
    part = summary[summary["metric"] == metric.key]
    values = [_value(summary, method, metric.key, column) for method in methods]
    scored = _coverage(part, methods)
    notes = [f"raw {value:.6g}, scored {cell.text}" for value, cell in zip(values, scored, strict=True)]
    return compared(values, metric, notes)


def _coverage(summary: pd.DataFrame, methods: Sequence[str]) -> list[Cell]:
    """Shapes scored of those asked for; those whose reference leaves a metric undefined are not asked for it."""
    cells = []
    for method in methods:
        part = summary[summary["method"] == method]
        asked = (part["asked"] - part["undefined"]).max()
        scored = part["scored"].max()
        cells.append(Cell(f"{scored}/{asked}" if len(part) else MISSING))
    return cells


def _value(summary: pd.DataFrame, method: str, metric: str, column: str) -> float:
    return _only(summary[(summary["method"] == method) & (summary["metric"] == metric)], column)


def _only(frame: pd.DataFrame, column: str) -> float:
    """The value of the one row; NaN where there is none."""
    return float(frame[column].iloc[0]) if len(frame) else float("nan")


def _whole(value: float) -> str:
    return f"{value:,.0f}" if np.isfinite(value) else MISSING
