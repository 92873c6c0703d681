"""Measure the reconstructed shapes of one experiment against the samples of their references."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline import ledger
from pipeline.jobs.arrays import read_tables
from pipeline.jobs.context import open_context
from pipeline.jobs.machine import memory_of_job
from pipeline.jobs.run_shard import write_ledger

ARGUMENTS = {"reference": "scale_to_off", "surface": "sample_surface", "volume": "sample_volume"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", type=Path, required=True, help="settings file of the evaluation")
    parser.add_argument("--predicted", type=Path, required=True, help="ledger of the reconstructed meshes")
    parser.add_argument("--members", type=Path, required=True, help="test shapes of the shard")
    parser.add_argument("--output", type=Path, required=True, help="ledger to write")
    parser.add_argument("--workers", type=int, default=1, help="worker processes")
    parser.add_argument("--memory", type=float, help="MB that the job may use in all")
    parser.add_argument("--log", type=Path, help="log file")


def run(arguments: argparse.Namespace) -> None:
    from pipeline import files

    context = open_context(arguments.settings)
    shards = sorted({(m["category"], m["shard"]) for m in files.read_lines(arguments.members)})
    arguments_read = {name: instance for name, instance in ARGUMENTS.items() if instance in context.work.reads}
    tables = read_tables(context.results, arguments_read.values(), shards)
    predicted = {shape: (row, str(arguments.predicted)) for shape, row in ledger.read(arguments.predicted).rows.items()}
    inputs = {
        shape: {"predicted": row, **{name: tables[i][shape] for name, i in arguments_read.items()}}
        for shape, row in predicted.items()
    }
    paths = {name: sorted({path for _, path in tables[i].values()}) for name, i in arguments_read.items()}
    paths["predicted"] = [str(arguments.predicted)]
    label = f"evaluate_meshes {arguments.output.parent.name}/{arguments.output.stem}"
    memory = memory_of_job(arguments.memory)
    write_ledger(context, inputs, paths, arguments.output, arguments.workers, memory, label, remake=True)
