"""A stage that takes one second and makes one megabyte: what `benchmarks.overhead` runs in place of a real one."""

from __future__ import annotations

from pydantic import PositiveFloat, PositiveInt

from pipeline.settings import Settings


class SyntheticSettings(Settings):
    """What the stage pretends to cost."""

    seconds: PositiveFloat = 1.0
    """Wall seconds of one shape."""

    count: PositiveInt = 83_333
    """Points of the product, 12 bytes each."""


import time

import numpy as np

from pipeline.arrays import Mesh, Product


def synthetic(mesh: Mesh, settings: SyntheticSettings, rng: np.random.Generator) -> Product:
    """Random points (count, 3) float32, `settings.seconds` after the call; the figures say when it began and ended."""
    began = time.time()
    points = rng.random((settings.count, 3), dtype=np.float32)
    time.sleep(max(0.0, began + settings.seconds - time.time()))
    return Product({"points": points}, figures={"began": began, "ended": time.time(), "faces": len(mesh.faces)})
