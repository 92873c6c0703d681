"""Join the measurements of all methods into tables; shapes without a mesh are rows too."""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline import files, ledger
from pipeline.jobs.check_tested import nothing_compared
from pipeline.jobs.context import Context, open_context
from pipeline.jobs.work import read_value
from pipeline.progress import LOG


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", type=Path, required=True, help="settings file of the summary")
    parser.add_argument("--raw", type=Path, nargs="+", required=True, help="ledgers of the evaluation")
    parser.add_argument("--output", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--log", type=Path, help="log file")


def run(arguments: argparse.Namespace) -> None:
    from pipeline.evaluation import summary

    context = open_context(arguments.settings)
    profiles = context.work.settings["evaluation"]["profiles"]
    wide = summary.wide_table(row for path in arguments.raw for row in measured(path, context, profiles))
    tables = {
        "shapes.csv": wide,
        "metrics.csv": summary.long_table(wide, profiles),
        "summary.csv": summary.by_method(wide),
        "categories.csv": summary.by_category(wide),
    }
    for name, table in tables.items():
        files.write_atomic(arguments.output / name, table.to_csv(index=False, lineterminator="\n"))
    stream = io.BytesIO()
    tables["metrics.csv"].to_parquet(stream, index=False)
    files.write_atomic(arguments.output / "metrics.parquet", stream.getvalue())
    LOG.info("%d rows of %d methods", len(wide), wide["method"].nunique())
    if fault := nothing_compared(arguments.raw):
        LOG.warning("%s", fault)


def measured(path: Path, context: Context, profiles: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of one method and test shard. Shapes rejected as data have no reference and are no row."""
    from pipeline.evaluation.summary import missing_rows, profile_rows

    method, rows = path.parent.name, []
    for shape, row in sorted(ledger.read(path).rows.items()):
        category, _, identifier = shape.partition("/")
        labels = {"method": method, "category": category, "id": identifier, "split": "test"}
        if row.accepted:
            rows += profile_rows(labels, read_value(row, str(path), context.store).value)
        elif row.stage.split("/")[0] in ("generate_meshes", "evaluate_meshes"):
            rows += missing_rows(labels, profiles, row.reason)
    return rows
