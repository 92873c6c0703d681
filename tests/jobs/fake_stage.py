"""A stage whose shapes do what their name says."""

from __future__ import annotations

from pipeline.settings import Settings


class FakeSettings(Settings):
    factor: int = 2


import ctypes
import errno
import os
import signal
import time
from pathlib import Path

import numpy as np

from pipeline.arrays import Product, Rejected


def fake(mesh: dict, settings: FakeSettings, rng: np.random.Generator) -> Product:
    behaviour = mesh["behaviour"]
    if behaviour == "sleeps":
        time.sleep(1000)
    if behaviour == "spins":
        while True:
            pass
    if behaviour == "naps":
        time.sleep(0.4)
    if behaviour == "crashes":
        ctypes.string_at(0)
    if behaviour == "exits":
        os._exit(7)
    if behaviour == "hoards":
        return Product({"size": float(np.ones(2**31).sum())})
    if behaviour == "rejects":
        raise Rejected("it has no surface")
    if behaviour == "errs":
        raise ValueError("a wrong turn")
    if behaviour == "finds the disk full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if behaviour == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "dies once" and first_time(mesh):
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "is stopped" and first_time(mesh):
        os.kill(os.getpid(), signal.SIGSTOP)
    if behaviour == "ends who starts workers" and first_time(mesh):
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(1000)
    if behaviour == "fills":
        np.empty(mesh["bytes"], np.uint8)
    if behaviour == "aborts for want of memory" and not fits(mesh["bytes"]):
        os.abort()
    return Product(
        {"number": settings.factor * mesh["number"], "drawn": float(rng.random())}, {"number": mesh["number"]}
    )


def first_time(mesh: dict) -> bool:
    """Leaves the number of this process behind, so that the next try knows."""
    mark = Path(mesh["mark"])
    if mark.exists():
        return False
    mark.write_text(str(os.getpid()))
    return True


def fits(size: int) -> bool:
    try:
        np.empty(size, np.uint8)
    except MemoryError:
        return False
    return True
