"""Trained models as jobs need them: loaded from a checkpoint, on their device, ready to answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.jobs.context import Context
from pipeline.progress import LOG
from pipeline.store import Damaged


def runtime_of(context: Context, experiment: str, threads: int):
    """The runtime settings of an experiment; threads: of the job, used where the block names none."""
    from pipeline.training.loop import RuntimeSettings

    runtime = RuntimeSettings(**context.runtime["experiments"][experiment])
    return runtime.model_copy(update={"threads": runtime.threads or threads})


def load_trained(settings: Mapping[str, Any], checkpoint: Path, context: Context, which: str = "best"):
    """The model of a checkpoint.json on the CPU, in evaluation mode.

    settings: its method, model and perhaps inference and parent. which: "best" or "last" weights.
    """
    from pipeline.models.contract import build_from
    from pipeline.training.checkpoint import assign_weights, decode_weights

    tensors, description = decode_weights(checkpoint_content(checkpoint, context))
    # The best weights are kept apart only where they are not the last.
    prefix = f"{which}/" if description["best_step"] != description["steps"] else "last/"
    model = build_from(settings, description["train_shapes"])
    assign_weights(model, {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)})
    return model.eval()


def on_device(model, runtime):
    """The model where an experiment's shapes are answered: one card whatever the training took, or the CPU."""
    from pipeline.training.loop import device_of

    try:
        return model.to(device_of(runtime.model_copy(update={"devices": 1})))
    except ValueError as problem:
        raise SystemExit(str(problem)) from None


def checkpoint_content(checkpoint: Path, context: Context) -> bytes:
    """The weights that a checkpoint.json names, from the store or from the copy beside it."""
    facts = files.read_json(checkpoint)
    try:
        return context.store.get(facts["file"])
    except Damaged as problem:
        copy = checkpoint.with_name("weights.safetensors").read_bytes()
        if files.digest_of(copy) != facts["digest"]:
            raise
        LOG.warning("%s; the copy in %s is used", problem, checkpoint.parent)
        return copy
