"""Tables over many shapes: wide and long, means with their coverage, and the layout the papers print.

Every summary tells how many shapes were asked for and how many have a value, and gives each mean twice: failed shapes
dropped, and failed shapes counted with the metric's penalty. A metric that the reference leaves undefined (IoU without
a volume) is no failure and is left out of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.evaluation.metrics import METRICS
from pipeline.evaluation.profiles import profile_named

if TYPE_CHECKING:
    import pandas as pd

KEYS = ["method", "category", "id"]
LABELS = [*KEYS, "split", "status", "reason"]
STATISTICS = {"micro": "mean over shapes", "macro": "mean of category means", "median": "median over shapes"}

Failures = Literal["dropped", "penalised"]


def wide_table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per method and shape, sorted, failures included: LABELS, the metrics, then what else the rows hold.

    Each row needs method, category, id and status; absent or None metrics become NaN. Raises ValueError for two rows
    of one method and shape, which would weigh it twice.
    """
    import pandas as pd

    table = pd.DataFrame(list(rows))
    first = [*LABELS, *METRICS]
    table = table.reindex(columns=[*first, *(column for column in table if column not in first)])
    doubled = table[table.duplicated(KEYS)]
    if len(doubled):
        raise ValueError(f"{len(doubled)} rows stand twice, first {'/'.join(doubled.iloc[0][KEYS])}")
    table[list(METRICS)] = table[list(METRICS)].astype(float)
    text = ["split", "reason"]
    table[text] = table[text].astype(object).where(table[text].notna(), "")
    return table.sort_values(KEYS, ignore_index=True)


def long_table(wide: pd.DataFrame, profiles: Sequence[str]) -> pd.DataFrame:
    """One row per method, shape, profile and metric of that profile; raw values."""
    import pandas as pd

    parts = []
    for profile in profiles:
        metrics = list(profile_named(profile).metrics)
        part = wide.melt(id_vars=LABELS, value_vars=metrics, var_name="metric", value_name="value")
        parts.append(part.assign(profile=profile))
    order = ["method", "category", "id", "split", "profile", "metric", "value", "status", "reason"]
    return pd.concat(parts, ignore_index=True)[order]


def by_method(wide: pd.DataFrame, metrics: Sequence[str] = tuple(METRICS)) -> pd.DataFrame:
    """One row per method and metric, with the columns of `summarise`."""
    return _summaries(wide, ["method"], metrics)


def by_category(wide: pd.DataFrame, metrics: Sequence[str] = tuple(METRICS)) -> pd.DataFrame:
    """One row per method, category and metric; within one category macro and micro are the same."""
    return _summaries(wide, ["method", "category"], metrics)


def status_counts(wide: pd.DataFrame) -> pd.DataFrame:
    """Per method: asked, the number of shapes of each status, and those ok but not watertight or inside out."""
    import pandas as pd

    counts = pd.crosstab(wide["method"], wide["status"])
    closed = wide.get("predicted_watertight", pd.Series(index=wide.index, dtype=object))
    ok, volumes = wide["status"] == "ok", pd.to_numeric(wide.get("predicted_volume", pd.Series(index=wide.index)))
    flags = {"not_watertight": ok & (closed == False), "inside_out": ok & (closed == True) & (volumes < 0)}  # noqa: E712
    for name, flag in flags.items():
        counts[name] = flag.groupby(wide["method"]).sum()
    counts.insert(0, "asked", wide.groupby("method").size())
    return counts.rename_axis(columns=None).reset_index()


def summarise(group: pd.DataFrame, metric: str) -> dict[str, float]:
    """One metric over rows of a wide table.

    asked: rows. scored: rows with a value. undefined: rows whose reference has none. coverage: scored over asked less
    undefined. Then micro_, macro_ and median_, each _dropped and _penalised; a category without any value takes no
    part in macro_dropped, and categories_scored of categories says so.
    """
    dropped = group[metric].where(group["status"] == "ok")
    penalised = penalise(group, metric)
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


def penalise(rows: pd.DataFrame, metric: str) -> pd.Series:
    """The metric's values, those of failed shapes replaced by its penalty; NaN where the reference leaves it undefined.

    A shape whose metric is NaN although its status is ok and its reference defines it counts as failed.
    """
    values = rows[metric].where(rows["status"] == "ok")
    undefined = rows["reference_has_volume"].eq(False) if _needs_volume(rows, metric) else False
    return values.fillna(METRICS[metric].penalty).mask(values.isna() & undefined)


def printed(
    wide: pd.DataFrame, profile: str, failures: Failures = "dropped", mean: Literal["macro", "micro"] | None = None
) -> pd.DataFrame:
    """A profile's table as its paper prints it: categories down, then the mean; (metric, method) across, scaled.

    mean: the profile's own where None; its row is named after it. The last row is the share of shapes that have a
    value. These numbers carry the paper's scale (Chamfer-L1 x 10) and are for reading, never for computing on.
    """
    import pandas as pd

    described = profile_named(profile)
    mean = mean or described.mean
    metrics = list(described.metrics)
    overall = by_method(wide, metrics)
    means = overall.assign(category=f"mean ({mean})", shown=overall[f"{mean}_{failures}"])
    rows = by_category(wide, metrics)
    rows = rows.assign(shown=rows[f"micro_{failures}"])
    scale = described.print_scale
    shown = pd.concat([rows, means])
    shown["shown"] *= shown["metric"].map(lambda metric: scale.get(metric, 1.0))
    shown = pd.concat([shown, overall.assign(category="coverage", shown=overall["coverage"])])
    table = shown.pivot(index="category", columns=["metric", "method"], values="shown")
    order = [*sorted(wide["category"].unique()), f"mean ({mean})", "coverage"]
    columns = [(metric, method) for metric in metrics for method in wide["method"].unique()]
    titles = {m: METRICS[m].title + (f" x{scale[m]:g}" if m in scale else "") for m in metrics}
    return table.reindex(index=order)[columns].rename(columns=titles, level="metric")


def _summaries(wide: pd.DataFrame, by: list[str], metrics: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for labels, group in wide.groupby(by, sort=True):
        for metric in metrics:
            rows.append({**dict(zip(by, labels, strict=True)), "metric": metric, **summarise(group, metric)})
    return pd.DataFrame(rows, columns=[*by, "metric", *summarise(wide.iloc[:0], metrics[0])])


def _needs_volume(rows: pd.DataFrame, metric: str) -> bool:
    return metric == "iou" and "reference_has_volume" in rows
