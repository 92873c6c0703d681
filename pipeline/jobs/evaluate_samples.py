"""How well a generator's new shapes stand for the test shapes: coverage, minimum matching distance, 1-NNA."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pipeline import encoding, files, ledger, seeds
from pipeline.fingerprint import code_digest, key_of
from pipeline.jobs.arrays import read_tables
from pipeline.jobs.context import Context, open_context
from pipeline.jobs.work import read_value
from pipeline.ledger import Row
from pipeline.progress import LOG, Progress
from pipeline.settings import as_json
from pipeline.store import Damaged

DESCRIPTOR = "light_field"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", type=Path, required=True, help="settings file of the comparison")
    parser.add_argument("--experiment", required=True, help="name of the experiment")
    parser.add_argument("--samples", type=Path, nargs="+", required=True, help="ledgers of the drawn shapes")
    parser.add_argument("--members", type=Path, nargs="+", required=True, help="test shapes of every shard")
    parser.add_argument("--output", type=Path, required=True, help="table to write")
    parser.add_argument("--workers", type=int, default=1, help="worker processes")
    parser.add_argument("--log", type=Path, help="log file")


def run(arguments: argparse.Namespace) -> None:
    from pipeline.evaluation import generators

    context = open_context(arguments.settings)
    settings = generators.GeneratorSettings(**context.work.settings["sampling"])
    drawn = _located(arguments.samples)
    references = _references(context, arguments.members)
    if not references:
        raise SystemExit(f"experiment {arguments.experiment}: there are no test shapes to compare the new shapes with")
    rows = {**drawn, **references}
    distances = _possible(arguments.experiment, settings.distances, context.runtime["reference"])
    result: dict[str, Any] = {}
    if "chamfer" in distances:
        clouds = _map(arguments, "surface samples", partial(_cloud, context, settings.points), rows)
        result["chamfer"] = generators.compare_clouds(*_sides(clouds, drawn, references))
    files_named: list[str] = []
    if "light_field" in distances:
        described = _map(arguments, "light fields", partial(_descriptor, context), rows)
        descriptors = {name: pair and pair[0] for name, pair in described.items()}
        files_named = sorted(pair[1] for pair in described.values() if pair)
        result["light_field"] = generators.compare_descriptors(
            *_sides(descriptors, drawn, references), settings.variant
        )
    about = {"experiment": arguments.experiment, "settings": settings.model_dump()}
    # Where every drawn shape failed, the minimum matching distance is infinite. The descriptors' files are named, so
    # that `isomill store gc` knows them.
    files.write_json(arguments.output, as_json({**about, **result, "descriptors": files_named}))


Located = Mapping[str, tuple[Row, str]]


def _located(paths: Sequence[Path]) -> Located:
    return {name: (row, str(path)) for path in paths for name, row in ledger.read(path).rows.items()}


def _references(context: Context, members: Sequence[Path]) -> Located:
    """The test shapes that were not rejected: their meshes, or the surface samples of a prepared set."""
    listed = [member for path in members for member in files.read_lines(path)]
    shards = sorted({(member["category"], member["shard"]) for member in listed})
    reference = context.runtime["reference"]
    table = read_tables(context.results, [reference], shards)[reference]
    return {m["shape"]: table[m["shape"]] for m in listed if table[m["shape"]][0].accepted}


def _possible(experiment: str, distances: Sequence[str], reference: str) -> list[str]:
    """The distances that can be taken; light fields need true meshes, which a prepared set has not."""
    sampled = reference == "sample_surface"
    possible = [name for name in distances if not (sampled and name == "light_field")]
    if len(possible) < len(distances):
        LOG.warning("experiment %s: no light field distances, the test shapes have no meshes", experiment)
    if not possible:
        raise SystemExit(f"experiment {experiment}: sampling.distances must name chamfer for shapes without meshes")
    return possible


def _sides(values: Mapping[str, Any], *sides: Located) -> list[list[Any]]:
    return [[values[name] for name in side] for side in sides]


def _map(arguments, label: str, function, rows: Located) -> dict[str, Any]:
    """The function's value of every accepted row, None of the others."""
    progress = Progress(f"{label} of {arguments.experiment}", len(rows))
    values: dict[str, Any] = {}
    # Ctrl-C reaches the workers as well, and the job answers it for all.
    quiet = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}
    try:
        with ProcessPoolExecutor(arguments.workers, get_context("forkserver"), **quiet) as pool:
            answers = pool.map(function, rows, rows.values(), chunksize=4)
            for name, value in zip(rows, answers, strict=True):
                values[name] = value
                progress.advance()
    except BrokenProcessPool:
        raise SystemExit(
            f"a worker process was killed while it took the {label} of {arguments.experiment}; so does a machine that "
            f"is out of memory. {arguments.workers} were at work: give the job fewer threads or more memory, and type "
            f"the same command again."
        ) from None
    finally:
        progress.close()
    return values


def _cloud(context: Context, points: int, name: str, located: tuple[Row, str]):
    from pipeline.arrays import Mesh
    from pipeline.geometry.sampling import points_on_surface

    row, path = located
    if not row.accepted:
        return None
    value = read_value(row, path, context.store).value
    if not isinstance(value, Mesh):
        return value["points"][:points]
    return points_on_surface(value, points, seeds.rng_for(context.work.seed, "evaluate_samples", name))[0]


def _descriptor(context: Context, name: str, located: tuple[Row, str]):
    """The light field descriptor of a mesh and its file in the store, where it is kept under the mesh's content."""
    from pipeline.arrays import Product
    from pipeline.evaluation.light_field import light_field_descriptor

    row, path = located
    if not row.accepted:
        return None
    key = key_of(DESCRIPTOR, row.digest, code_digest(("pipeline.evaluation.light_field", "pipeline.encoding")))
    entry = context.store.have(DESCRIPTOR, key)
    if entry is not None:
        try:
            return encoding.decode(context.store.get(entry.file), "arrays").value["descriptor"], entry.file
        except Damaged as problem:
            LOG.warning("%s: %s; it is made again", name, problem)
            context.store.discard(entry)
    descriptor = light_field_descriptor(read_value(row, path, context.store).value)
    content = encoding.encode(Product({"descriptor": descriptor}), "arrays")
    stored = context.store.put(DESCRIPTOR, key, content, encoding.EXTENSIONS["arrays"])
    return descriptor, stored.file
