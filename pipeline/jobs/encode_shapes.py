"""Export the codes that a trained model gives the test shapes, as HDF5."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline import claims, files, seeds
from pipeline.fingerprint import key_of
from pipeline.jobs.arrays import ShapeReader, Table, first_rejection, read_tables
from pipeline.jobs.context import Context, open_context
from pipeline.jobs.generate_meshes import observe
from pipeline.jobs.gpu import take_gpus
from pipeline.jobs.layout import claim_of
from pipeline.jobs.memory import enough_memory
from pipeline.jobs.shards import StopRequest
from pipeline.jobs.trained import load_trained, on_device, runtime_of
from pipeline.progress import LOG, Progress

if TYPE_CHECKING:
    from pipeline.jobs.keeper import FileKeeper


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", type=Path, required=True, help="settings file of the encoding")
    parser.add_argument("--experiment", required=True, help="name of the experiment")
    parser.add_argument("--members", type=Path, required=True, help="test shapes of the shard")
    parser.add_argument("--checkpoint", type=Path, required=True, help="checkpoint.json of its training")
    parser.add_argument("--output", type=Path, required=True, help="HDF5 file to write")
    parser.add_argument("--threads", type=int, default=1, help="threads on the CPU")
    parser.add_argument("--log", type=Path, help="log file")


def run(arguments: argparse.Namespace) -> None:
    take_gpus()  # before anything imports torch
    context = open_context(arguments.settings)
    members = files.read_lines(arguments.members)
    shards = sorted({(member["category"], member["shard"]) for member in members})
    tables = read_tables(context.results, context.work.reads or (context.runtime["reference"],), shards)
    shapes = [m["shape"] for m in members if first_rejection(tables, m["shape"]) is None]
    tables = {instance: tables[instance] for instance in context.work.reads}
    what = f"the codes of {arguments.experiment}, shard {arguments.output.stem},"
    with claims.held(claim_of(arguments.output), what) as claim:
        keepers = _keepers(arguments, context, tables, shapes, claim.check)
        names, codes = _codes(arguments, context, ShapeReader(tables, shapes, context.store), shapes, keepers)
        which = context.work.settings["extraction"]["checkpoint"]
        claim.check()
        files.write_atomic(arguments.output, codes_file(names, codes, which))
        for keeper in keepers:
            keeper.forget()


def _keepers(
    arguments, context: Context, tables: Mapping[str, Table], shapes: Sequence[str], may_write: Callable[[], None]
) -> list[FileKeeper]:
    """One for each batch: the state of its optimisation, named by its shapes, their inputs, weights and settings.

    may_write: called before a state is kept, and raises where another job has taken the work over.
    """
    from pipeline.jobs.keeper import FileKeeper

    minutes = runtime_of(context, arguments.experiment, arguments.threads).checkpoint_minutes
    weights, stop, keepers = files.read_json(arguments.checkpoint)["digest"], StopRequest(), []
    size = context.work.settings["extraction"]["batch_shapes"]
    for start in range(0, len(shapes), size):
        inputs = [[shape, *(t[shape][0].digest for t in tables.values())] for shape in shapes[start : start + size]]
        name = key_of("encode_shapes", context.work.fingerprint, weights, inputs)
        path = arguments.output.parent / "state" / f"{name}.safetensors"
        keepers.append(FileKeeper(path, minutes, stop, may_write))
    return keepers


def _codes(
    arguments, context: Context, reader: ShapeReader, shapes: Sequence[str], keepers: Sequence[FileKeeper]
) -> tuple[list[str], list[dict[str, np.ndarray]]]:
    """Names of the shapes that have codes, and the codes: one mapping of arrays with leading batch per batch."""
    import torch

    from pipeline.models.contract import stack_observations

    runtime = runtime_of(context, arguments.experiment, arguments.threads)
    torch.set_num_threads(runtime.threads)
    extraction = context.work.settings["extraction"]
    model = load_trained(context.work.settings, arguments.checkpoint, context, extraction["checkpoint"])
    model, size = on_device(model, runtime), extraction["batch_shapes"]
    progress = Progress(f"encode_shapes {arguments.experiment}", len(shapes))
    names, codes = [], []
    for start, model.keeper in zip(range(0, len(shapes), size), keepers, strict=True):
        batch = shapes[start : start + size]
        seen, rejected = observe(model, reader[start : start + size], batch, context.work.seed)
        for shape, reason in rejected.items():
            LOG.warning("%s has no code: %s", shape, reason)
        if seen:
            streams = [seeds.torch_seed(context.work.seed, "encode", shape) for shape in seen]
            with enough_memory("a batch of test shapes", f"Lower extraction.batch_shapes (now {size})."):
                code = model.encode(stack_observations(list(seen.values()), model.device), streams)
            names += seen
            codes.append({name: part.cpu().numpy() for name, part in code.items()})
        progress.advance(len(batch))
    progress.close()
    return names, codes


def codes_file(names: Sequence[str], codes: Sequence[dict[str, np.ndarray]], which: str) -> bytes:
    """HDF5 with "shapes" (n,), the ids as text, and one dataset with leading n for every part of a code.

    which: the attribute "weights", the "best" or the "last" ones of the training.
    """
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["weights"] = which
        file.create_dataset("shapes", data=np.array(names, dtype=object), dtype=h5py.string_dtype())
        for name in codes[0] if codes else ():
            file.create_dataset(name, data=np.concatenate([one[name] for one in codes]), compression="gzip")
    return buffer.getvalue()
