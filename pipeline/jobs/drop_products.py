"""Remove the files of a stage that everything has read; each leaves a note, from which its ledgers can be written."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline import files, ledger
from pipeline.jobs.context import open_context
from pipeline.jobs.work import drop_note
from pipeline.progress import LOG


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", type=Path, required=True, help="settings file of the dropping")
    parser.add_argument("--instance", required=True, help="data stage whose files are dropped")
    parser.add_argument("--output", type=Path, required=True, help="record to write")
    parser.add_argument("--log", type=Path, help="log file")


def run(arguments: argparse.Namespace) -> None:
    context = open_context(arguments.settings)
    paths = sorted((context.results / "data" / arguments.instance).glob("*/*.jsonl"))
    rows = [row for row in ledger.read_all(paths).values() if row.accepted]
    freed = [context.store.drop(row.file, drop_note(row)) for row in rows]
    LOG.info(
        "%s: %d of %d files dropped, %.1f MB", arguments.instance, sum(map(bool, freed)), len(rows), sum(freed) / 2**20
    )
    files.write_json(arguments.output, {"stage": arguments.instance, "files": len(rows)})
