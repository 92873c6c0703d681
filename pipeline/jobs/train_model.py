"""Train one experiment, or take its finished checkpoint from the store without loading torch."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from pipeline import claims, encoding, files, seeds
from pipeline.fingerprint import key_of
from pipeline.jobs.arrays import ShapeReader, first_rejection, read_tables
from pipeline.jobs.context import Context, open_context
from pipeline.jobs.gpu import take_gpus
from pipeline.jobs.history import NO_HISTORY, History, keep_history, kept_history, validation_note
from pipeline.jobs.layout import claim_of
from pipeline.jobs.memory import enough_memory
from pipeline.jobs.shards import Stopped
from pipeline.jobs.trained import load_trained, runtime_of
from pipeline.models import registry
from pipeline.progress import LOG, Progress
from pipeline.sources.catalogue import read_catalogue
from pipeline.store import Damaged, Entry
from pipeline.training.held_out import even_subset

STAGE = "train_model"
ARRAYS = ".arrays-"  # beginning of the names of folders with arrays that memory may not hold


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", type=Path, required=True, help="settings file of the training")
    parser.add_argument("--experiment", required=True, help="name of the experiment")
    parser.add_argument("--catalogue", type=Path, required=True, help="catalogue of the source")
    parser.add_argument("--parent", type=Path, nargs="?", help="checkpoint.json of the experiment it builds on")
    parser.add_argument("--output", type=Path, required=True, help="checkpoint.json to write; weights go beside it")
    parser.add_argument("--threads", type=int, default=1, help="threads on the CPU")
    parser.add_argument("--log", type=Path, help="log file")


def run(arguments: argparse.Namespace) -> None:
    context = open_context(arguments.settings)
    with _owned(arguments) as may_save:
        _run(arguments, context, may_save)


@contextmanager
def _owned(arguments: argparse.Namespace) -> Iterator[Callable[[], None]]:
    """No other job works on the experiment meanwhile; gives what is to be called before anything of it is written."""
    if int(os.environ.get("LOCAL_RANK", "0")) > 0:
        yield lambda: None  # one of the processes that the owner started to share its steps
        return
    folder = arguments.output.parent
    with claims.held(claim_of(arguments.output), f"the training of {arguments.experiment}") as claim:
        sweep_leftovers(folder)
        yield claim.check


def sweep_leftovers(folder: Path) -> None:
    """Remove what killed trainings of an experiment left in its folder; only its owner may."""
    for path in (*folder.glob(f"{ARRAYS}*"), *folder.glob("state/*/.tmp-*")):
        LOG.info("%s was left by a training that was killed; it is removed", path)
        shutil.rmtree(path, ignore_errors=True)


def _run(arguments: argparse.Namespace, context: Context, may_save: Callable[[], None]) -> None:
    work = context.work
    splits = _splits(arguments.catalogue)
    tables = read_tables(context.results, work.reads, _shards(arguments.catalogue))
    usable = {s: [n for n in names if first_rejection(tables, n) is None] for s, names in splits.items()}
    if not usable["train"]:
        _require_training_shapes(arguments.experiment, splits["train"], work)
    held_out, usable["val"] = len(usable["val"]), _validated_with(usable["val"], work)
    digests = {
        split: [[shape, [tables[i][shape][0].digest for i in work.reads]] for shape in usable[split]]
        for split in ("train", "val")
    }
    if arguments.parent:
        digests["parent"] = files.read_json(arguments.parent)["digest"]
    key = key_of("experiment", work.fingerprint, digests, work.seed)
    entry = context.store.have(STAGE, key)
    content = _stored(context, entry)
    if content is None:
        start = time.perf_counter()
        result, content = _train(arguments, context, tables, usable, digests, may_save)
        # The weights come last: where they are, all of a finished training is.
        keep_history(context.store, key, result)
        entry = context.store.put(STAGE, key, content, "safetensors")
        _note_cost(context.timings(arguments.output), arguments.experiment, time.perf_counter() - start, result)
    else:
        LOG.info("%s: the finished checkpoint of this training is in the store; nothing to train", arguments.experiment)
    history = kept_history(context.store, key)
    may_save()
    notes = validation_note(history.validation, held_out)
    write_checkpoint(arguments.output, entry, content, arguments.experiment, history, notes)


def _validated_with(names: list[str], work) -> list[str]:
    """The held-out shapes that are used: others may come and go, and nothing is trained again."""
    method, model = work.settings["method"], work.settings["model"]
    if not registry.declaration(method, registry.head(method).ModelSettings(**model)).validates:
        return []
    chosen = even_subset(names, work.settings["training"]["validation_shapes"], _seed(work))
    return [names[place] for place in chosen]


def _seed(work) -> int:
    return seeds.torch_seed(work.seed, STAGE)


def _note_cost(timings: Path, experiment: str, seconds: float, result) -> None:
    """What this job spent, and how it went: nothing that belongs to the result."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cost = {"seconds": round(seconds, 3), "peak_mb": round(peak, 1), "steps": result.steps_made}
    incidents = {"incidents": list(result.incidents)} if result.incidents else {}
    files.append_line(timings, {"shape": experiment, "status": "ok", **cost, **incidents})


def _splits(catalogue: Path) -> dict[str, list[str]]:
    entries = read_catalogue(catalogue.read_bytes().decode())
    return {split: sorted(f"{e.category}/{e.id}" for e in entries if e.split == split) for split in ("train", "val")}


def _shards(catalogue: Path) -> list[tuple[str, str]]:
    """All (category, shard) of the listing, empty ones included."""
    return [(path.parent.name, path.stem) for path in sorted((catalogue.parent / "members").glob("*/*.jsonl"))]


def _require_training_shapes(experiment: str, listed: list[str], work) -> None:
    if work.settings["method"] == "mean_shape":
        LOG.warning("there are no training shapes, so the mean shape stays empty")
        return
    why = f"all {len(listed)} training shapes were rejected" if listed else "the split has no training shapes"
    raise SystemExit(
        f"experiment {experiment} needs training shapes, but {why}. Add shapes, change source.split, or leave out "
        f"experiments that train (methods such as poisson need no training)."
    )


def _stored(context: Context, entry: Entry | None) -> bytes | None:
    if entry is None:
        return None
    try:
        return context.store.get(entry.file)
    except Damaged as problem:
        LOG.warning("%s; it is trained again", problem)
        context.store.discard(entry)
        return None


def _train(arguments, context: Context, tables, usable, digests, may_save: Callable[[], None]):
    """The result of the training and the bytes of its checkpoint."""
    from pipeline.training import loop

    training = loop.TrainingSettings(**context.work.settings["training"])
    with _explained(loop, training):
        return _trained(arguments, context, tables, usable, digests, training, may_save)


def _trained(arguments, context: Context, tables, usable, digests, training, may_save: Callable[[], None]):
    from pipeline.training import checkpoint, loop
    from pipeline.training.data import ResidentData, Spill

    work, settings = context.work, context.work.settings
    runtime = runtime_of(context, arguments.experiment, arguments.threads)
    take_gpus(runtime.devices)
    device, seed = loop.device_of(runtime), _seed(work)
    # On its device, since what is kept of a shape may be computed by a frozen network.
    model = _initial(arguments, context, len(usable["train"]), seed).to(device)
    if not usable["train"]:
        result = loop.TrainResult(*(checkpoint.weights_of(model),) * 2, [], 0, 0)
        return result, _encode(result, settings, 0)
    reader = ShapeReader(tables, usable["train"], context.store)
    LOG.info("%s: reading %d training shapes", arguments.experiment, len(reader))
    folder = arguments.output.parent
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=ARRAYS, dir=folder) as arrays:
        data = ResidentData.for_model(
            model,
            reader,
            device,
            names=usable["train"],
            limit=loop.resident_limit(runtime),
            spill=Spill(_host_limit(runtime), Path(arrays)),
        )
        if data.left_out:
            _require_some(arguments.experiment, data)
            # As if these shapes had never been there: models may hold something of every training shape.
            model = _initial(arguments, context, len(data), seed).to(device)
        with _reporter(arguments.experiment, training.steps) as report:
            result = loop.train(
                model,
                data,
                ShapeReader(tables, usable["val"], context.store),
                training,
                runtime,
                seed=seed,
                state_dir=folder / "state" / _run_key(work, digests),
                log_dir=folder / "tensorboard",
                validation_names=usable["val"],
                report=report,
                may_save=may_save,
            )
    if not result.leads:
        raise Stopped(0)  # the process that started this one writes the result
    return result, _encode(result, settings, len(data))


def _initial(arguments, context: Context, train_shapes: int, seed: int):
    """The model before its training, with the weights of the one it builds on."""
    from pipeline.models.contract import build_from
    from pipeline.training import checkpoint

    settings = context.work.settings
    model = build_from(settings, train_shapes, seed)
    if arguments.parent:
        parent = load_trained(settings["parent"], arguments.parent, context, settings["parent"]["checkpoint"])
        checkpoint.assign_weights(model.parent, checkpoint.weights_of(parent))
    return model


def _require_some(experiment: str, data) -> None:
    if not len(data):
        name, reason = next(iter(data.left_out.items()))
        raise SystemExit(
            f"experiment {experiment} cannot be trained on any of its {len(data.left_out)} training shapes; "
            f"the first, {name}: {reason}"
        )


def _host_limit(runtime) -> int:
    """Bytes of training arrays that this process may hold in memory."""
    return int(psutil.virtual_memory().available * runtime.host_share / runtime.devices)


@contextmanager
def _explained(loop, training) -> Iterator[None]:
    """Foreseen ends of a training as one message each."""
    advice = (
        f"Lower training.batch_shapes (now {training.batch_shapes}) or the points per shape in the model block, "
        f"or raise training.accumulate (now {training.accumulate}), which takes the shapes of a step in parts."
    )
    try:
        with enough_memory("a batch", advice):
            yield
    except loop.Interrupted as stop:
        LOG.warning("%s", stop)
        raise Stopped(128 + signal.SIGTERM) from None
    except loop.NonFiniteLoss as problem:
        raise SystemExit(str(problem)) from None
    except ValueError as problem:
        if not _told_by_us(problem):
            raise
        raise SystemExit(str(problem)) from None


def _told_by_us(problem: Exception) -> bool:
    """Our own checks say what to change about settings and files; what a library refuses is a defect of ours."""
    *_, (frame, _) = traceback.walk_tb(problem.__traceback__)
    return frame.f_globals["__name__"].startswith("pipeline.")


def _run_key(work, digests: dict[str, Any]) -> str:
    """Names a run that may be continued: everything that decides it but its length."""
    training = {name: value for name, value in work.settings["training"].items() if name != "steps"}
    return key_of(work.settings | {"training": training}, work.libraries, work.code, digests, work.seed)[:16]


def _encode(result, settings: dict[str, Any], train_shapes: int) -> bytes:
    """The checkpoint: weights and what is needed to take them up, and nothing of how they were reached."""
    from pipeline.training import checkpoint

    tensors = {f"last/{name}": tensor for name, tensor in result.last_weights.items()}
    if result.best_step != result.steps_done:
        tensors |= {f"best/{name}": tensor for name, tensor in result.weights.items()}
    description = {
        **{part: settings[part] for part in ("method", "model", "parent") if part in settings},
        "train_shapes": train_shapes,
        "steps": result.steps_done,
        "best_step": result.best_step,
    }
    return checkpoint.encode_weights(tensors, description)


class _reporter:
    """Shows the steps of a training as they are made."""

    def __init__(self, experiment: str, steps: int) -> None:
        self._label, self._steps, self._progress = experiment, steps, None

    def __enter__(self):
        return self._report

    def _report(self, step: int, total: int, values: dict[str, float]) -> None:
        if self._progress is None:
            self._progress = Progress(self._label, total, "steps", done=step)
            return
        self._progress.advance(step - self._progress.done, "  ".join(f"{k} {v:.4g}" for k, v in values.items()))

    def __exit__(self, *error) -> None:
        if self._progress is not None:
            self._progress.close()


def write_checkpoint(
    output: Path,
    entry: Entry,
    content: bytes,
    experiment: str,
    history: History = NO_HISTORY,
    notes: tuple[str, ...] = (),
) -> None:
    """The declared outputs; checkpoint.json, which says all is there, comes last.

    notes: of this study, beside those of the training.
    """
    description = encoding.tensor_description(content)
    files.write_atomic(output.with_name("weights.safetensors"), content)
    files.write_atomic(output.with_name("history.csv"), history.csv())
    facts = {name: description[name] for name in ("method", "model", "train_shapes", "steps", "best_step")}
    course = {"history_file": history.file, "validation": history.validation, "notes": [*history.notes, *notes]}
    files.write_json(output, {"experiment": experiment, "file": entry.file, "digest": entry.digest, **facts, **course})
