"""New shapes from a generator: codes drawn from its prior, each from a seed of its own, and their meshes."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.arrays import Product, Rejected
from pipeline.reconstruction.extract import ExtractionSettings
from pipeline.reconstruction.shapes import GenerationSettings, meshes


def draw_shapes(model, seeds: Sequence[int], settings: GenerationSettings) -> list[Product | Rejected]:
    """One new mesh per seed, in order; a shape depends on its own seed alone.

    Where a shape has no surface, the Rejected says why.
    """
    import torch

    codes = [model.sample(1, torch.Generator(model.device).manual_seed(seed)) for seed in seeds]
    code = {name: torch.cat([one[name] for one in codes]) for name in codes[0]}
    return meshes(model, code, seeds, ExtractionSettings(**settings.extraction))
