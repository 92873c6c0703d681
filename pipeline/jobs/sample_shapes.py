"""Draw new shapes from a generator, each cached under the checkpoint and its own number."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline import encoding, files, ledger, seeds
from pipeline.jobs.context import Context, open_context
from pipeline.jobs.gpu import take_gpus
from pipeline.jobs.memory import enough_memory, extraction_advice
from pipeline.jobs.shards import Stopped, StopRequest
from pipeline.jobs.trained import load_trained, on_device, runtime_of
from pipeline.jobs.work import accepted_row, reject, stored_row
from pipeline.ledger import Row
from pipeline.progress import LOG, Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", type=Path, required=True, help="settings file of the sampling")
    parser.add_argument("--experiment", required=True, help="name of the experiment")
    parser.add_argument("--first", type=int, required=True, help="number of the first shape")
    parser.add_argument("--count", type=int, required=True, help="shapes to draw")
    parser.add_argument("--checkpoint", type=Path, required=True, help="checkpoint.json of its training")
    parser.add_argument("--output", type=Path, required=True, help="ledger to write")
    parser.add_argument("--threads", type=int, default=1, help="threads on the CPU")
    parser.add_argument("--log", type=Path, help="log file")


def run(arguments: argparse.Namespace) -> None:
    context = open_context(arguments.settings)
    weights = files.read_json(arguments.checkpoint)["digest"]
    names = [f"samples/{number:06d}" for number in range(arguments.first, arguments.first + arguments.count)]
    keys = {name: context.work.key(name, {"checkpoint": weights}) for name in names}
    rows = {n: stored_row(context.work, n, keys[n], context.store) for n in names}
    missing = [name for name in names if rows[name] is None]
    LOG.info("%s: %d new shapes, %d of them drawn already", arguments.experiment, len(names), len(names) - len(missing))
    if missing:
        rows.update(_drawn(arguments, context, keys, set(missing)))
    header = {"stage": context.work.instance, "settings": context.work.file, "inputs": {}, "remake": False}
    ledger.write(arguments.output, ledger.Ledger(header, rows))


def _drawn(arguments, context: Context, keys: dict[str, str], missing: set[str]) -> dict[str, Row]:
    """Rows of the missing shapes; every batch that lacks one is drawn whole, so that a restart gives the same."""
    take_gpus()
    import torch

    from pipeline.reconstruction.samples import draw_shapes
    from pipeline.reconstruction.shapes import GenerationSettings

    runtime = runtime_of(context, arguments.experiment, arguments.threads)
    torch.set_num_threads(runtime.threads)
    settings = GenerationSettings(**context.work.settings)
    which = settings.extraction["checkpoint"]
    model = on_device(load_trained(settings.model_dump(), arguments.checkpoint, context, which), runtime)
    size = settings.extraction["batch_shapes"]
    stop, progress, rows = StopRequest(), Progress(f"sample_shapes {arguments.experiment}", len(missing)), {}
    names = list(keys)
    for start in range(0, len(names), size):
        batch = names[start : start + size]
        if missing.isdisjoint(batch):
            continue
        streams = [seeds.torch_seed(context.work.seed, "sample_shapes", name) for name in batch]
        with torch.no_grad(), enough_memory("a batch of new shapes", extraction_advice(settings.extraction)):
            outcomes = draw_shapes(model, streams, settings)
        drawn = {n: outcome for n, outcome in zip(batch, outcomes, strict=True) if n in missing}
        rows.update({name: _kept(context, name, keys[name], outcome) for name, outcome in drawn.items()})
        progress.advance(len(drawn))
        if stop.signal:
            raise Stopped(128 + stop.signal)
    progress.close()
    return rows


def _kept(context: Context, name: str, key: str, outcome) -> Row:
    from pipeline.arrays import Rejected

    if isinstance(outcome, Rejected):
        return reject(context.work, name, key, str(outcome), context.store)
    entry = context.store.put(context.work.stage, key, encoding.encode(outcome, "off"), "off")
    return accepted_row(name, entry, outcome.figures, outcome.status)
