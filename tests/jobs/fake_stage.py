"""A stage whose shapes do what their name says."""

from __future__ import annotations

from pipeline.settings import Settings


class FakeSettings(Settings):
    factor: int = 2


import ctypes
import os
import time

import numpy as np

from pipeline.arrays import Product, Rejected


def fake(mesh: dict, settings: FakeSettings, rng: np.random.Generator) -> Product:
    behaviour = mesh["behaviour"]
    if behaviour == "sleeps":
        time.sleep(1000)
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
    if behaviour == "dies once" and not os.path.exists(mesh["mark"]):
        open(mesh["mark"], "w").close()
        os.kill(os.getpid(), 9)
    return Product(
        {"number": settings.factor * mesh["number"], "drawn": float(rng.random())}, {"number": mesh["number"]}
    )
