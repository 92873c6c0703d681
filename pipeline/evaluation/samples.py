"""How well a generator's new shapes cover the test shapes: the numbers of one generator's table."""

from __future__ import annotations

from pydantic import PositiveInt

from pipeline.settings import Settings


class SamplingSettings(Settings):
    """New shapes of a generator, and how they are compared with the test shapes."""

    count: PositiveInt = 1000
    """Shapes drawn; more of them leave the others as they are."""

    block: PositiveInt = 250
    """Shapes per job."""

    points: PositiveInt = 2048
    """Points on each shape for the Chamfer distances."""

    light_field: bool = True
    """Compare by light field distance too: 100 rendered silhouettes a shape."""
