"""Reconstruct the test shapes of one experiment, shape by shape cached under the checkpoint that made them."""

from __future__ import annotations

import argparse
import resource
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import claims, encoding, files, ledger, seeds
from pipeline.fingerprint import key_of
from pipeline.jobs.arrays import ShapeReader, Table, first_rejection, read_tables
from pipeline.jobs.context import Context, open_context
from pipeline.jobs.gpu import take_gpus
from pipeline.jobs.layout import claim_of
from pipeline.jobs.machine import memory_of_job
from pipeline.jobs.memory import card_failed, enough_memory, extraction_advice, out_of_memory
from pipeline.jobs.run_shard import write_ledger
from pipeline.jobs.shards import Stopped, StopRequest
from pipeline.jobs.trained import load_trained, on_device, runtime_of
from pipeline.jobs.work import Work, accepted_row, reject, stored_row
from pipeline.ledger import Row
from pipeline.progress import LOG, Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", type=Path, required=True, help="settings file of the generation")
    parser.add_argument("--experiment", required=True, help="name of the experiment")
    parser.add_argument("--members", type=Path, required=True, help="test shapes of the shard")
    parser.add_argument("--checkpoint", type=Path, nargs="?", help="checkpoint.json of its training, if it has one")
    parser.add_argument("--batched", action="store_true", help="many shapes together on the device")
    parser.add_argument("--output", type=Path, required=True, help="ledger to write")
    parser.add_argument("--threads", type=int, default=1, help="threads on the CPU")
    parser.add_argument("--memory", type=float, help="MB that worker processes may use in all")
    parser.add_argument("--log", type=Path, help="log file")


def run(arguments: argparse.Namespace) -> None:
    context = open_context(arguments.settings)
    members = files.read_lines(arguments.members)
    shards = sorted({(member["category"], member["shard"]) for member in members})
    # A method that observes nothing still answers only for shapes that exist.
    instances = context.work.reads or (context.runtime["reference"],)
    tables = read_tables(context.results, instances, shards)
    shapes = [member["shape"] for member in members]
    if arguments.batched:
        _run_batched(arguments, context, tables, shapes)
    else:
        _run_alone(arguments, context, tables, shapes)


def _run_alone(arguments, context: Context, tables: Mapping[str, Table], shapes: Sequence[str]) -> None:
    """Methods with nothing to train: each shape by itself, in worker processes that may crash alone."""
    inputs = {s: {f"products:{i}": table[s] for i, table in tables.items()} for s in shapes}
    paths = {f"products:{i}": sorted({path for _, path in table.values()}) for i, table in tables.items()}
    label = f"generate_meshes {arguments.experiment}/{arguments.output.stem}"
    memory = memory_of_job(arguments.memory)
    write_ledger(context, inputs, paths, arguments.output, arguments.threads, memory, label, remake=True)


def _run_batched(arguments, context: Context, tables: Mapping[str, Table], shapes: Sequence[str]) -> None:
    """Methods with weights, and those that optimise many shapes together."""
    batches = _Batches(arguments, context, tables)
    rows, missing = {}, []
    for shape in shapes:
        rejected = first_rejection(tables, shape)
        passed_on = Row(shape, "rejected", reason=rejected.reason, stage=rejected.stage) if rejected else None
        row = passed_on or batches.stored(shape)
        if row is None:
            missing.append(shape)
        else:
            rows[shape] = row
    LOG.info("%s: %d test shapes, %d of them settled already", arguments.experiment, len(shapes), len(rows))
    if missing:
        what = f"the meshes of {arguments.experiment}, shard {arguments.output.stem},"
        with claims.held(claim_of(arguments.output), what) as claim:
            rows.update((row.shape, row) for row in batches.run(shapes, set(missing), claim.check))
    header = {"stage": context.work.instance, "settings": context.work.file, "inputs": {}, "remake": False}
    ledger.write(arguments.output, ledger.Ledger(header, rows))
    failed = ledger.count_reasons([row for row in rows.values() if row.stage == context.work.instance])
    for reason, count in failed.most_common(5):
        LOG.warning("%s: %d without a mesh: %s", arguments.experiment, count, reason)


class _Batches:
    """Test shapes in batches that follow the sorted members alone, so that a restart computes the same numbers."""

    def __init__(self, arguments, context: Context, tables: Mapping[str, Table]) -> None:
        self._arguments, self._context, self._tables = arguments, context, tables
        self._work: Work = context.work
        path = arguments.checkpoint
        self._weights = {"checkpoint": files.read_json(path)["digest"]} if path else {}

    def key(self, shape: str) -> str:
        digests = {instance: self._tables[instance][shape][0].digest for instance in self._work.reads}
        return self._work.key(shape, {**self._weights, **digests})

    def stored(self, shape: str) -> Row | None:
        return stored_row(self._work, shape, self.key(shape), self._context.store)

    def run(self, shapes: Sequence[str], missing: set[str], may_write: Callable[[], None]) -> Iterator[Row]:
        """Rows of the missing shapes; every batch that lacks one is computed whole.

        may_write: called before a state is kept, and raises where another job has taken the work over.
        """
        take_gpus()
        import torch

        from pipeline.reconstruction.shapes import GenerationSettings

        torch.set_num_threads(self._runtime().threads)
        settings = GenerationSettings(**self._work.settings)
        model = self._model(settings)
        size = settings.extraction["batch_shapes"]
        stop, progress = StopRequest(), Progress(f"generate_meshes {self._arguments.experiment}", len(missing))
        for start in range(0, len(shapes), size):
            batch = [s for s in shapes[start : start + size] if first_rejection(self._tables, s) is None]
            if missing.isdisjoint(batch):
                continue
            begun = time.perf_counter()
            model.keeper = self._keeper(batch, stop, may_write)
            with enough_memory("a batch of test shapes", extraction_advice(settings.extraction)):
                outcomes = self._reconstruct(model, batch, settings)
            rows = [self._keep(shape, outcomes[shape]) for shape in batch if shape in missing]
            model.keeper.forget()
            self._note_costs(rows, (time.perf_counter() - begun) / len(batch))
            yield from rows
            progress.advance(len(rows))
            if stop.signal:
                LOG.warning("stopped; the shapes of the finished batches are kept and the same command goes on")
                raise Stopped(128 + stop.signal)
        progress.close()

    def _note_costs(self, rows: Sequence[Row], seconds: float) -> None:
        """seconds: of one shape, as the mean of its batch."""
        peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
        for row in rows:
            cost = {"seconds": round(seconds, 4), "peak_mb": peak}
            timings = self._context.timings(self._arguments.output)
            files.append_line(timings, {"shape": row.shape, "status": row.status, **cost})

    def _runtime(self):
        return runtime_of(self._context, self._arguments.experiment, self._arguments.threads)

    def _keeper(self, batch: Sequence[str], stop: StopRequest, may_write: Callable[[], None]):
        """Keeps the optimisation of these very shapes, inputs and settings."""
        from pipeline.jobs.keeper import FileKeeper

        name = key_of("encode", [self.key(shape) for shape in batch])
        path = self._arguments.output.parent / "state" / f"{name}.safetensors"
        return FileKeeper(path, self._runtime().checkpoint_minutes, stop, may_write)

    def _reconstruct(self, model, batch: Sequence[str], settings) -> dict[str, Any]:
        """Shape → the product or Rejected of every shape of a batch."""
        tables = {i: self._tables[i] for i in self._work.reads}
        observations, outcomes = observe(model, ShapeReader(tables, batch, self._context.store), batch, self._work.seed)
        if observations:
            seen = list(observations)
            streams = [seeds.torch_seed(self._work.seed, "encode", shape) for shape in seen]
            results = _reconstructed(model, list(observations.values()), streams, settings, seen)
            outcomes.update(zip(seen, results, strict=True))
        return outcomes

    def _keep(self, shape: str, outcome) -> Row:
        from pipeline.arrays import Rejected

        key, store = self.key(shape), self._context.store
        if isinstance(outcome, Rejected):
            return reject(self._work, shape, key, str(outcome), store)
        entry = store.put(self._work.stage, key, encoding.encode(outcome, "off"), "off")
        return accepted_row(shape, entry, outcome.figures, outcome.status)

    def _model(self, settings):
        """The model on its device, ready to answer: trained, or with nothing to train."""
        from pipeline.models.contract import build_from

        path = self._arguments.checkpoint
        if path is None:
            model = build_from(settings.model_dump(), 0).eval()
        else:
            model = load_trained(settings.model_dump(), path, self._context, settings.extraction["checkpoint"])
        return on_device(model, self._runtime())


def observe(model, reader: ShapeReader, shapes: Sequence[str], seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the model sees of each shape, and the Rejected of those of which it sees nothing."""
    from pipeline.arrays import Rejected

    seen, rejected = {}, {}
    for shape, arrays in zip(shapes, reader, strict=True):
        try:
            seen[shape] = model.observe(arrays, seeds.rng_for(seed, "observe", shape))
        except Rejected as reason:
            rejected[shape] = reason
    return seen, rejected


def _reconstructed(model, observations: Sequence, streams: Sequence[int], settings, shapes: Sequence[str]) -> list:
    """`reconstruct` of a batch; where one shape of it fails unforeseen, that one is set aside with its reason."""
    from pipeline.arrays import Rejected
    from pipeline.reconstruction.shapes import reconstruct

    try:
        return reconstruct(model, observations, streams, settings)
    except (MemoryError, ImportError, OSError, Stopped):
        raise
    except Exception as error:
        if out_of_memory(error) or card_failed(error):
            raise  # shapes one by one would fit, but their numbers are those of the whole batch
        if len(shapes) == 1:
            LOG.error("%s: %s", shapes[0], traceback.format_exc())
            return [Rejected(f"unexpected {type(error).__name__}: {error} (a defect of Isomill; please report it)")]
        alone = zip(observations, streams, shapes, strict=True)
        return [_reconstructed(model, [seen], [stream], settings, [shape])[0] for seen, stream, shape in alone]
