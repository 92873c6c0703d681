"""What a training run borrows from its process and gives back: signals, threads, the random stream, a log writer."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import torch


@contextlib.contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGUSR1 set; outside the main thread signals are left alone."""
    stop, before = threading.Event(), {}
    if threading.current_thread() is threading.main_thread():
        before = {kind: signal.signal(kind, lambda *_: stop.set()) for kind in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield stop
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def own_random_stream(device: torch.device) -> Iterator[None]:
    """Steps seed torch's global stream of the CPU and of a card, which is given back as it was."""
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device.type == "cuda" else []):
        yield


@contextlib.contextmanager
def writer(log_dir: Path | None, step: int) -> Iterator[Callable[[dict[str, float]], None]]:
    """A function that writes one row for TensorBoard; rows of an earlier run from `step` on are dropped."""
    if log_dir is None:
        yield lambda row: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(log_dir), purge_step=step + 1) as writer:

        def write(row: dict[str, float]) -> None:
            for name in row.keys() - {"step"}:
                writer.add_scalar(name, row[name], int(row["step"]))

        yield write
