"""One data stage over one shard: read the input ledgers, make what is missing, write the ledger."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline import files, ledger
from pipeline.jobs.context import Context, open_context
from pipeline.jobs.machine import Memory, memory_of_job
from pipeline.jobs.shards import inputs_of, map_shapes
from pipeline.progress import LOG


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", type=Path, required=True, help="settings file of the stage")
    parser.add_argument(
        "--inputs", type=Path, nargs="+", required=True, help="ledgers, in the order of the stage's inputs"
    )
    parser.add_argument("--output", type=Path, required=True, help="ledger to write")
    parser.add_argument("--workers", type=int, default=1, help="worker processes")
    parser.add_argument("--memory", type=float, help="MB that the job may use in all")
    parser.add_argument("--log", type=Path, help="log file")


def run(arguments: argparse.Namespace) -> None:
    context = open_context(arguments.settings)
    work = context.work
    paths = {name: [str(path)] for name, path in zip(work.upstream, arguments.inputs, strict=True)}
    if work.reads_source:
        shapes = {m["shape"]: m for path in paths["members"] for m in files.read_lines(Path(path))}
    else:
        shapes = inputs_of(paths)
    label = f"{work.instance} {arguments.output.parent.name}/{arguments.output.stem}"
    memory = memory_of_job(arguments.memory)
    write_ledger(context, shapes, paths, arguments.output, arguments.workers, memory, label, remake=True)


def write_ledger(
    context: Context,
    shapes,
    paths: dict[str, list[str]],
    output: Path,
    workers: int,
    memory: Memory,
    label: str,
    remake: bool,
) -> None:
    """Map the stage over `shapes` and write the ledger. remake: its files can be made again from `paths` alone."""
    work = context.work
    rows = map_shapes(work, shapes, context.store, context.limits, workers, context.timings(output), label, memory)
    header = {"stage": work.instance, "settings": work.file, "inputs": paths, "remake": remake}
    ledger.write(output, ledger.Ledger(header, rows))
    own = [row for row in rows.values() if row.stage == work.instance]
    LOG.info("%s: %d shapes, %d rejected here", label, len(rows), len(own))
    for reason, count in ledger.count_reasons(own).most_common(5):
        LOG.info("  %d x %s", count, reason)
