"""Evaluate the fields of one experiment on the test shapes without making meshes, and their inputs beside them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import files, seeds
from pipeline.jobs.arrays import ShapeReader, first_rejection, read_tables
from pipeline.jobs.context import Context, open_context
from pipeline.jobs.generate_meshes import observe
from pipeline.jobs.gpu import take_gpus
from pipeline.jobs.memory import enough_memory, extraction_advice
from pipeline.jobs.trained import load_trained, on_device, runtime_of
from pipeline.progress import LOG, Progress

GRID = "voxels.32"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", type=Path, required=True, help="settings file of the quick evaluation")
    parser.add_argument("--experiment", required=True, help="name of the experiment")
    parser.add_argument("--members", type=Path, nargs="+", required=True, help="test shapes of all shards")
    parser.add_argument("--checkpoint", type=Path, required=True, help="checkpoint.json of its training")
    parser.add_argument("--output", type=Path, required=True, help="CSV to write, one row per shape")
    parser.add_argument("--means", type=Path, required=True, help="CSV to write, one row per category and mean")
    parser.add_argument("--threads", type=int, default=1, help="threads on the CPU")
    parser.add_argument("--log", type=Path, help="log file")


def run(arguments: argparse.Namespace) -> None:
    from pipeline.evaluation.summary import quick_means, quick_table

    context = open_context(arguments.settings)
    members = sorted((m for path in arguments.members for m in files.read_lines(path)), key=lambda m: m["shape"])
    shards = sorted({(member["category"], member["shard"]) for member in members})
    tables = read_tables(context.results, context.work.reads, shards)
    shapes = [m["shape"] for m in members if first_rejection(tables, m["shape"]) is None]
    table = quick_table(arguments.experiment, _rows(arguments, context, tables, shapes))
    for path, frame in ((arguments.output, table), (arguments.means, quick_means(table))):
        files.write_atomic(path, frame.to_csv(index=False, lineterminator="\n"))
    LOG.info("%s: %d test shapes", arguments.experiment, len(table))


def _rows(arguments, context: Context, tables: Mapping[str, Any], shapes: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One row per shape; a shape that the model cannot observe is a row with the reason."""
    take_gpus()
    import torch

    from pipeline.evaluation.inputs import evaluate_input
    from pipeline.evaluation.quick import evaluate_fields

    runtime = runtime_of(context, arguments.experiment, arguments.threads)
    torch.set_num_threads(runtime.threads)
    extraction = context.work.settings["extraction"]
    model = load_trained(context.work.settings, arguments.checkpoint, context, extraction["checkpoint"])
    model, size = on_device(model, runtime), extraction["batch_shapes"]
    reader = ShapeReader({i: tables[i] for i in context.work.reads}, shapes, context.store)
    progress, seed = Progress(f"evaluate_fields {arguments.experiment}", len(shapes)), context.work.seed
    for start in range(0, len(shapes), size):
        batch = shapes[start : start + size]
        arrays = dict(zip(batch, reader[start : start + size], strict=True))
        seen, rejected = observe(model, list(arrays.values()), batch, seed)
        for shape, reason in rejected.items():
            yield {"shape": shape, "status": "invalid", "reason": str(reason)}
        if seen:
            volumes = [_part(arrays[shape], "volume") for shape in seen]
            grids = [arrays[shape][GRID] for shape in seen]
            streams = [seeds.torch_seed(seed, "encode", shape) for shape in seen]
            rngs = [seeds.rng_for(seed, "quick_eval", shape) for shape in seen]
            points = extraction["batch_points"]
            with enough_memory("a batch of test shapes", extraction_advice(extraction)):
                rows = evaluate_fields(model, list(seen.values()), streams, volumes, grids, rngs, points)
            for (shape, observation), row, volume, rng in zip(seen.items(), rows, volumes, rngs, strict=True):
                surface = _part(arrays[shape], "surface") or None
                yield {"shape": shape, **row, **evaluate_input(observation, surface, volume, rng)}
        progress.advance(len(batch))
    progress.close()


def _part(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The arrays of one stage under their own names."""
    return {name.partition(".")[2]: array for name, array in arrays.items() if name.partition(".")[0] == prefix}
