"""Where the history of a training is shown while it runs: TensorBoard, and services that the user has a key for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.training.loop import RuntimeSettings

Row = dict[str, float]
Write = Callable[[Row], None]


@contextlib.contextmanager
def writer(log_dir: Path | None, runtime: RuntimeSettings, step: int, leads: bool = True) -> Iterator[Write]:
    """A function that shows one row everywhere it is wanted; rows of an earlier run after `step` are dropped.

    leads: whether this is the process that speaks for all. Raises ValueError where a service is asked for whose key or
    package is not there.
    """
    with contextlib.ExitStack() as stack:
        writers = []
        if leads and log_dir is not None and runtime.tensorboard:
            writers.append(stack.enter_context(_tensorboard(log_dir, step)))
        if leads and runtime.wandb:
            writers.append(stack.enter_context(_wandb(runtime.wandb, log_dir)))
        if leads and runtime.comet:
            writers.append(stack.enter_context(_comet(runtime.comet, log_dir)))
        yield lambda row: [write(row) for write in writers]


@contextlib.contextmanager
def _tensorboard(log_dir: Path, step: int) -> Iterator[Write]:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(log_dir), purge_step=step + 1) as board:

        def write(row: Row) -> None:
            for name in row.keys() - {"step"}:
                board.add_scalar(name, row[name], int(row["step"]))

        yield write


@contextlib.contextmanager
def _wandb(project: str, log_dir: Path | None) -> Iterator[Write]:
    _require_key("wandb", "WANDB_API_KEY")
    try:
        import wandb
    except ImportError:
        raise _not_installed("wandb", "wandb") from None

    run = wandb.init(project=project, name=_name(log_dir), dir=str(log_dir) if log_dir else None)
    try:
        yield lambda row: run.log({k: v for k, v in row.items() if k != "step"}, step=int(row["step"]))
    finally:
        run.finish()


@contextlib.contextmanager
def _comet(project: str, log_dir: Path | None) -> Iterator[Write]:
    _require_key("comet", "COMET_API_KEY")
    try:
        import comet_ml
    except ImportError:
        raise _not_installed("comet", "comet_ml") from None

    experiment = comet_ml.Experiment(project_name=project)
    experiment.set_name(_name(log_dir))
    try:
        yield lambda row: experiment.log_metrics({k: v for k, v in row.items() if k != "step"}, step=int(row["step"]))
    finally:
        experiment.end()


def _name(log_dir: Path | None) -> str:
    """The experiment's folder is named after it."""
    return log_dir.parent.name if log_dir else "training"


def _require_key(service: str, key: str) -> None:
    if not os.environ.get(key):
        raise ValueError(f"runtime.{service} is set, but {key} is not: put your key there, or leave the setting out")


def _not_installed(service: str, package: str) -> ValueError:
    return ValueError(f"runtime.{service} is set, but {package} is not installed: pip install {package}")
