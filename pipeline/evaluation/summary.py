"""Tables over many shapes: wide and long, means with their coverage, and the layout the papers print.

A shape has one row per method and profile: values that were taken in different ways never stand in one row, and
`table[table.profile == "onet"]` is a table of one protocol.

Every summary tells how many shapes were asked for and how many have a value, and gives each mean twice: failed shapes
dropped, and failed shapes counted with the metric's penalty. A metric that the reference leaves undefined (IoU without
a volume) is no failure and is left out of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.evaluation.metrics import METRICS, Metric
from pipeline.evaluation.profiles import profile_named

if TYPE_CHECKING:
    import pandas as pd

KEYS = ["method", "profile", "category", "id"]
LABELS = [*KEYS, "split", "status", "reason"]
NEED_VOLUME = ("iou", "voxel_error")

Failures = Literal["dropped", "penalised"]


def profile_rows(labels: Mapping[str, Any], value: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of one shape from the value of `shape.evaluate_mesh`. labels: method, category, id, split."""
    return [{**row, **labels, "profile": profile} for profile, row in value["profiles"].items()]


def missing_rows(labels: Mapping[str, Any], profiles: Iterable[str], reason: str) -> list[dict[str, Any]]:
    """The rows of a shape for which a method gave nothing."""
    return [{"status": "missing", "reason": reason, **labels, "profile": profile} for profile in profiles]


def wide_table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per method, profile and shape, sorted, failures included: LABELS, METRICS, then what else the rows hold.

    Each row needs method, profile, category, id and status; absent or None metrics become NaN. Raises ValueError for
    two rows of one method, profile and shape, which would weigh it twice.
    """
    import pandas as pd

    table = pd.DataFrame(list(rows))
    first = [*LABELS, *METRICS]
    table = table.reindex(columns=[*first, *(column for column in table if column not in first)])
    doubled = table[table.duplicated(KEYS)]
    if len(doubled):
        raise ValueError(f"{len(doubled)} rows stand twice, first {'/'.join(doubled.iloc[0][KEYS])}")
    numbers = [*METRICS, *(column for column in table if column.startswith("printed_"))]
    table[numbers] = table[numbers].astype(float)
    text = ["split", "reason"]
    table[text] = table[text].astype(object).where(table[text].notna(), "")
    return table.sort_values(KEYS, ignore_index=True)


def long_table(wide: pd.DataFrame, profiles: Sequence[str]) -> pd.DataFrame:
    """One row per method, shape, profile and metric that the profile reports or prints; printed_... carry its scale."""
    import pandas as pd

    parts = []
    for profile in profiles:
        described = profile_named(profile)
        metrics = [*described.metrics, *(f"printed_{name}" for name in described.printed)]
        part = wide[wide["profile"] == profile].reindex(columns=[*LABELS, *metrics])
        parts.append(part.melt(id_vars=LABELS, value_vars=metrics, var_name="metric", value_name="value"))
    order = ["method", "category", "id", "split", "profile", "metric", "value", "status", "reason"]
    return pd.concat(parts, ignore_index=True)[order]


def by_method(wide: pd.DataFrame, metrics: Sequence[str] | None = None) -> pd.DataFrame:
    """One row per method, profile and metric, with the columns of `summarise`.

    metrics: those of each profile that it reports and those that any shape has, where None.
    """
    return _summaries(wide, ["method", "profile"], metrics)


def by_category(wide: pd.DataFrame, metrics: Sequence[str] | None = None) -> pd.DataFrame:
    """The same per category; within one category macro and micro are the same."""
    return _summaries(wide, ["method", "profile", "category"], metrics)


def summarise(group: pd.DataFrame, metric: str, meaning: Metric) -> dict[str, float]:
    """One metric over rows of a wide table, all of one profile.

    asked: rows. scored: rows with a value. undefined: rows whose reference has none. coverage: scored over asked less
    undefined. Then micro_, macro_ and median_, each _dropped and _penalised; a category without any value takes no
    part in macro_dropped, and categories_scored of categories says so.
    """
    dropped = group[metric].where(group["status"] == "ok")
    penalised = penalise(group, metric, meaning)
    categories = group["category"]
    asked, scored, undefined = len(group), int(dropped.notna().sum()), int(penalised.isna().sum())
    row: dict[str, float] = {
        "asked": asked,
        "scored": scored,
        "undefined": undefined,
        "coverage": scored / (asked - undefined) if asked > undefined else np.nan,
        "categories": categories.nunique(),
        "categories_scored": categories[dropped.notna()].nunique(),
    }
    for name, values in (("dropped", dropped), ("penalised", penalised)):
        row[f"micro_{name}"] = values.mean()
        row[f"macro_{name}"] = values.groupby(categories).mean().mean()
        row[f"median_{name}"] = values.median()
    return row


def penalise(rows: pd.DataFrame, metric: str, meaning: Metric) -> pd.Series:
    """The metric's values, those of failed shapes replaced by its penalty; NaN where the reference leaves it undefined.

    A shape whose metric is NaN although its status is ok and its reference defines it counts as failed.
    """
    values = rows[metric].where(rows["status"] == "ok")
    needs_volume = metric.removeprefix("printed_") in NEED_VOLUME and "reference_has_volume" in rows
    undefined = rows["reference_has_volume"].eq(False) if needs_volume else False
    return values.fillna(meaning.penalty).mask(values.isna() & undefined)


def printed(
    wide: pd.DataFrame, profile: str, failures: Failures = "dropped", mean: Literal["macro", "micro"] | None = None
) -> pd.DataFrame:
    """A profile's table as its paper prints it: categories down, then the mean; (metric, method) across, scaled.

    mean: the profile's own where None; its row is named after it. The last row is the share of shapes that have a
    value. These numbers carry the paper's scale (Chamfer-L1 x 10) and are for reading, never for computing on.
    """
    import pandas as pd

    described = profile_named(profile)
    wide = wide[wide["profile"] == profile]
    mean = mean or described.mean
    metrics, scale = [key for key in described.shown if key in wide], described.print_scale
    overall = by_method(wide, metrics)
    means = overall.assign(category=f"mean ({mean})", shown=overall[f"{mean}_{failures}"])
    rows = by_category(wide, metrics)
    rows = rows.assign(shown=rows[f"micro_{failures}"])
    shown = pd.concat([rows, means])
    shown["shown"] *= shown["metric"].map(lambda metric: scale.get(metric, 1.0))
    shown = pd.concat([shown, overall.assign(category="coverage", shown=overall["coverage"])])
    table = shown.pivot(index="category", columns=["metric", "method"], values="shown")
    order = [*sorted(wide["category"].unique()), f"mean ({mean})", "coverage"]
    columns = [(metric, method) for metric in metrics for method in wide["method"].unique()]
    meanings = described.columns
    titles = {m: meanings[m].title + (f" x{scale[m]:g}" if m in scale else "") for m in metrics}
    return table.reindex(index=order)[columns].rename(columns=titles, level="metric")


def _summaries(wide: pd.DataFrame, by: list[str], metrics: Sequence[str] | None) -> pd.DataFrame:
    import pandas as pd

    rows = []
    wanted = {profile: _metrics_of(wide, profile, metrics) for profile in wide["profile"].unique()}
    for labels, group in wide.groupby(by, sort=True):
        named = dict(zip(by, labels, strict=True))
        for metric, meaning in wanted[named["profile"]].items():
            rows.append({**named, "metric": metric, **summarise(group, metric, meaning)})
    empty = wide.iloc[:0]
    return pd.DataFrame(rows, columns=[*by, "metric", *summarise(empty, "iou", METRICS["iou"])])


def _metrics_of(wide: pd.DataFrame, profile: str, metrics: Sequence[str] | None) -> dict[str, Metric]:
    """The metrics to summarise for one profile, with their meanings, in the order of the tables."""
    described = profile_named(profile)
    values = wide[wide["profile"] == profile]
    columns = {key: meaning for key, meaning in described.columns.items() if key in wide}
    if metrics is not None:
        return {key: columns[key] for key in metrics if key in columns}
    return {key: m for key, m in columns.items() if key in described.metrics or values[key].notna().any()}


def quick_table(method: str, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of the quick evaluation, sorted: method, category, id, then its values. Each has "shape": category/id."""
    import pandas as pd

    table = pd.DataFrame([{"method": method, **dict(row)} for row in rows])
    first = ["method", "category", "id", "iou", "iou_voxels", "loss", "reconstruction_loss", "kl"]
    if table.empty:
        return pd.DataFrame(columns=[*first, "points", "status", "reason"])
    table[["category", "id"]] = table.pop("shape").str.split("/", n=1, expand=True)
    table = table.reindex(columns=[*first, *(column for column in table if column not in first)])
    return table.sort_values(["category", "id"], ignore_index=True)


def quick_means(table: pd.DataFrame) -> pd.DataFrame:
    """Of a quick table: a row per category, then the macro and the micro mean. Shapes without a value are left out of
    its mean; asked and scored (by IoU) tell how many there are."""
    import pandas as pd

    numbers = [column for column in table.select_dtypes("number") if column != "points"]
    grouped = table.groupby("category")
    categories = grouped[numbers].mean()
    categories.insert(0, "asked", grouped.size())
    categories.insert(1, "scored", grouped["iou"].count())
    total = {"asked": len(table), "scored": int(table["iou"].count())}
    means = {"macro mean": categories[numbers].mean(), "micro mean": table[numbers].mean()}
    ends = pd.DataFrame([{"category": name, **total, **values.to_dict()} for name, values in means.items()])
    return pd.concat([categories.reset_index(), ends], ignore_index=True)
