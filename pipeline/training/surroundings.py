"""What a training run borrows from its process and gives back: signals, threads, random stream, precision."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

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
def matmul_precision(tf32: bool) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
