"""`isomill shape <category>/<id>`: every file of one shape, or why there is none."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline import ledger
from pipeline.cli.study import add_config_argument, read_plan
from pipeline.jobs.layout import Layout
from pipeline.names import by_name
from pipeline.settings import canonical_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shape", help="category/id, as in the ledgers and tables (however its accents are written)")
    add_config_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    plan = read_plan(arguments.configfile)
    layout = Layout(Path(plan.results), **plan.layout())
    found = False
    for stage, paths in layout.stages():
        ledgers = [ledger.read(path) for path in paths if path.suffix == ".jsonl" and path.is_file()]
        rows = [by_name(one.rows, arguments.shape) for one in ledgers]
        for row in filter(None, rows):
            found = True
            print(f"{stage:32} {describe(row, plan.study.store.path)}")
    if not found:
        print(f"{arguments.shape} is in no ledger of {plan.results}; the ids stand in {plan.catalogue}")
    return 0 if found else 1


def describe(row: ledger.Row, store: str) -> str:
    """One line: the file with its size and figures, or the reason of the rejection."""
    if not row.accepted:
        where = f" at {row.stage}" if row.stage else ""
        return f"rejected{where}: {row.reason}"
    return f"{store}/{row.file}  {row.size:,} bytes  {canonical_json(row.figures)}"
