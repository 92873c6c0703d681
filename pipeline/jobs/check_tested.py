"""The last verdict of a run: a report that compares nothing is a failure, unless the configuration allows it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline import files, ledger
from pipeline.jobs.context import open_context
from pipeline.progress import LOG

AFTERWARDS = ("generate_meshes", "evaluate_meshes")  # stages that speak of a method, not of a shape
SHOWN = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", type=Path, required=True, help="settings file of the check")
    parser.add_argument("--raw", type=Path, nargs="+", required=True, help="ledgers of the evaluation")
    parser.add_argument("--report", type=Path, required=True, help="the report, which can be read by now")
    parser.add_argument("--output", type=Path, required=True, help="verdict to write")
    parser.add_argument("--log", type=Path, help="log file")


def run(arguments: argparse.Namespace) -> None:
    allowed = open_context(arguments.settings).work.settings["allow_empty"]
    fault = nothing_compared(arguments.raw)
    if fault and not allowed:
        raise SystemExit(f"{fault}\nThe report is at {arguments.report}. If this is meant, write allow_empty: true.")
    if fault:
        LOG.warning("%s", fault)
    # The ledgers' digest, so that what stands on the verdict follows them.
    digest = files.digest_of(b"".join(path.read_bytes() for path in arguments.raw))
    files.write_json(arguments.output, {"fault": fault, "ledgers": digest})


def nothing_compared(ledgers: Sequence[Path]) -> str:
    """Why the measurements of all methods compare nothing; empty where they do.

    ledgers: of the evaluation, which hold every test shape, those that were rejected as data too.
    """
    rows = [row for path in ledgers for row in ledger.read(path).rows.values()]
    shapes = {row.shape for row in rows}
    if not shapes:
        return "There are no test shapes, so nothing is compared. Add shapes, or change source.split."
    if any(row.accepted for row in rows):
        return ""
    rejected = {row.shape: row for row in rows if row.stage.split("/")[0] not in AFTERWARDS}
    if rejected.keys() == shapes:
        told = "; ".join(_counted(list(rejected.values())))
        return f"All {len(shapes)} test shapes were rejected, so nothing is compared: {told}."
    told = "; ".join(_counted([row for row in rows if row.shape not in rejected]))
    return f"No method gave a mesh that could be measured for any of {len(shapes)} test shapes: {told}."


def _counted(rows: list[ledger.Row]) -> list[str]:
    """The commonest reasons with their number and an example."""
    counts = ledger.count_reasons(rows).most_common(SHOWN)
    examples = {reason: min(row.shape for row in rows if row.reason == reason) for reason, _ in counts}
    return [f"{count} x {reason} (for example {examples[reason]})" for reason, count in counts]
