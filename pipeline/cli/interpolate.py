"""`isomill interpolate <experiment> <shape> <shape>`: meshes on the way from one shape's code to another's."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import commands, encoding, files, seeds
from pipeline.cli.study import add_config_argument, read_plan
from pipeline.plan import Plan
from pipeline.progress import LOG, start_log

if TYPE_CHECKING:
    import numpy as np

    from pipeline.jobs.context import Context


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", help="name of a trained experiment whose shapes have codes")
    parser.add_argument("first", help="category/id of the shape to begin with, of any split")
    parser.add_argument("last", help="category/id of the shape to end with")
    parser.add_argument("--steps", type=int, default=7, help="meshes, those of the two shapes included (default: 7)")
    parser.add_argument("--output", type=Path, required=True, help="folder for 00.off, 01.off, ...; files are replaced")
    parser.add_argument("--threads", type=int, default=1, help="threads on the CPU (default: 1)")
    add_config_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    start_log(None)
    plan, name = read_plan(arguments.configfile), arguments.experiment
    if name not in plan.encoding:
        raise SystemExit(f"error: {name!r} is no experiment with codes; those are {', '.join(plan.encoding) or 'none'}")
    try:
        outcomes = _between(plan, arguments)
    except ValueError as problem:
        raise SystemExit(f"error: {problem}") from None
    written = 0
    for number, outcome in enumerate(outcomes):
        if isinstance(outcome, Exception):
            LOG.warning("step %d has no mesh: %s", number, outcome)
            continue
        files.write_atomic(arguments.output / f"{number:02d}.off", encoding.encode(outcome, "off"))
        written += 1
    print(f"{written} of {len(outcomes)} meshes written to {arguments.output}")
    return 0 if written else 1


def _between(plan: Plan, arguments: argparse.Namespace) -> list[Any]:
    """The product, or the Rejected that says why there is none, of every step."""
    import torch

    from pipeline.jobs.trained import load_trained, runtime_of
    from pipeline.reconstruction.extract import ExtractionSettings
    from pipeline.reconstruction.interpolate import interpolated
    from pipeline.reconstruction.shapes import meshes
    from pipeline.training.loop import device_of

    name, shapes = arguments.experiment, (arguments.first, arguments.last)
    context, checkpoint = _made(plan, name)
    settings, runtime = context.work.settings, runtime_of(context, name, arguments.threads)
    torch.set_num_threads(runtime.threads)
    which = settings["extraction"]["checkpoint"]
    model = load_trained(settings, checkpoint, context, which).to(device_of(runtime))
    kept = stored_codes(Path(plan.results) / "codes" / name, shapes, checkpoint, which)
    if kept:
        code = {part: torch.from_numpy(array).to(model.device) for part, array in kept.items()}
    else:
        code = _encoded(model, context, plan, shapes)
    mixed = interpolated(code, arguments.steps)
    streams = [
        seeds.torch_seed(context.work.seed, "interpolate", *shapes, str(step)) for step in range(arguments.steps)
    ]
    return meshes(model, mixed, streams, ExtractionSettings(**settings["extraction"]))


def _made(plan: Plan, name: str) -> tuple[Context, Path]:
    """The surroundings of an experiment's generation, as its last run wrote them, and its checkpoint."""
    from pipeline.jobs.context import open_context

    checkpoint = Path(plan.results) / "training" / name / "checkpoint.json"
    settings = Path(plan.settings_file(f"generate_meshes/{name}"))
    for path in (checkpoint, settings):
        if not path.is_file():
            train = commands.snakemake("--cores", "4", str(checkpoint))
            raise SystemExit(f"error: {path} is missing; train first: {train}")
    return open_context(settings), checkpoint


def stored_codes(folder: Path, shapes: Sequence[str], checkpoint: Path, which: str) -> dict[str, np.ndarray] | None:
    """Codes of two shapes, stacked, from the exported ones of a folder (`snakemake encode_all`).

    None where one of them is not there, or the checkpoint is younger than what was exported of it. which: weights of
    the checkpoint; codes that others of them gave are not taken.
    """
    import h5py
    import numpy as np

    found: dict[str, Mapping[str, np.ndarray]] = {}
    for path in sorted(folder.glob("*.h5")):
        if path.stat().st_mtime < checkpoint.stat().st_mtime:
            continue
        with h5py.File(path) as file:
            if file.attrs.get("weights") != which:
                continue
            names = list(file["shapes"].asstr()[:])
            for shape in {*shapes} & {*names}:
                row = names.index(shape)
                found[shape] = {part: file[part][row] for part in file if part != "shapes"}
    if len(found) < len({*shapes}):
        return None
    return {part: np.stack([found[shape][part] for shape in shapes]) for part in found[shapes[0]]}


def _encoded(model, context: Context, plan: Plan, shapes: Sequence[str]) -> dict[str, Any]:
    """Codes of two shapes from their data, with the random streams that generation gives them."""
    from pipeline.jobs.arrays import ShapeReader, first_rejection, read_tables
    from pipeline.jobs.generate_meshes import observe
    from pipeline.models.contract import stack_observations

    categories = {shape.partition("/")[0] for shape in shapes}
    shards = [shard for shard in plan.shards if shard[0] in categories]
    instances = context.work.reads or (context.runtime["reference"],)
    try:
        tables = read_tables(context.results, instances, shards)
    except FileNotFoundError as missing:
        prepare = commands.snakemake("--cores", "4", "prepare_all")
        raise SystemExit(f"error: {missing.filename} is missing; finish the data first: {prepare}") from None
    for shape in shapes:
        if any(shape not in table for table in tables.values()) or not tables:
            raise SystemExit(f"error: {shape} is no shape of this study; the ids stand in {plan.catalogue}")
        if rejected := first_rejection(tables, shape):
            raise SystemExit(f"error: {shape} was rejected at {rejected.stage}: {rejected.reason}")
    reader = ShapeReader({instance: tables[instance] for instance in context.work.reads}, shapes, context.store)
    # A shape twice is seen twice alike.
    rows = [observe(model, reader[k : k + 1], [shape], context.work.seed) for k, shape in enumerate(shapes)]
    for _, unseen in rows:
        for shape, reason in unseen.items():
            raise SystemExit(f"error: {shape} has no code: {reason}")
    seen = [observation for found, _ in rows for observation in found.values()]
    streams = [seeds.torch_seed(context.work.seed, "encode", shape) for shape in shapes]
    return model.encode(stack_observations(seen, model.device), streams)
