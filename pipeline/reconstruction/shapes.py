"""From observations to meshes, whatever the model: observe, encode, then its own surface or its field's level set."""

from __future__ import annotations

from typing import Any

from pipeline.settings import Settings, as_json


class GenerationSettings(Settings):
    """The parts of an experiment's block that decide its meshes, besides the trained weights."""

    method: str
    """File of the model."""

    model: dict[str, Any]
    """Its settings."""

    inference: dict[str, Any]
    """How it encodes."""

    extraction: dict[str, Any]
    """How a mesh is taken from its field."""

    parent: dict[str, Any] | None = None
    """Method, settings and perhaps parent of the model that it builds on."""


from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pipeline.arrays import Product, Rejected
from pipeline.reconstruction.extract import ExtractionSettings, extract
from pipeline.shape_arrays import shape_arrays

Products = Mapping[str, Mapping[str, np.ndarray]]


def reconstruct_alone(products: Products, settings: GenerationSettings, rng: np.random.Generator) -> Product:
    """The mesh of one shape by a model with nothing to train.

    products: instance → arrays of the shape. Raises Rejected where there is no surface.
    """
    from pipeline.models.contract import build_from

    model = build_from(settings.model_dump(), 0)
    seed = int(rng.integers(2**63))
    outcome = reconstruct(model, [model.observe(shape_arrays(products), rng)], [seed], settings)[0]
    if isinstance(outcome, Rejected):
        raise outcome
    return outcome


def reconstruct(
    model, observations: Sequence[Mapping[str, np.ndarray]], seeds: Sequence[int], settings: GenerationSettings
) -> list[Product | Rejected]:
    """The meshes of several shapes together, in order; where there is none, the Rejected that says why."""
    from pipeline.models.contract import stack_observations

    code = model.encode(stack_observations(observations, model.device), seeds)
    return meshes(model, code, seeds, ExtractionSettings(**settings.extraction))


def meshes(
    model, code: Mapping[str, Any], seeds: Sequence[int], extraction: ExtractionSettings
) -> list[Product | Rejected]:
    """The meshes of shapes from their codes, in order; where there is none, the Rejected that says why.

    seeds: one per shape.
    """
    import torch

    figures = model.figures(code)
    if model.declaration.quantity == "surface":
        return [_checked(mesh, own) for mesh, own in zip(model.surface(code), figures, strict=True)]
    level = model.level if extraction.level is None else extraction.level

    def field(shapes: np.ndarray, queries: np.ndarray) -> np.ndarray:
        chosen = torch.from_numpy(shapes).to(model.device)
        rows = {name: part.index_select(0, chosen) for name, part in code.items()}
        with torch.inference_mode():
            return model.field(rows, torch.from_numpy(queries).to(model.device)).float().cpu().numpy()

    def torch_field(shape: int, points: torch.Tensor) -> torch.Tensor:
        # Copied, since a code made in inference mode cannot take part in a gradient.
        row = {name: part[shape : shape + 1].clone() for name, part in code.items()}
        return model.field(row, points.to(model.device)[None])[0].float()

    extraction = extraction.model_copy(update={"level": level})
    found = extract(field, len(seeds), model.declaration.quantity, extraction, torch_field, seeds)
    return [_with_figures(outcome, own) for outcome, own in zip(found, figures, strict=True)]


def _with_figures(outcome: Product | Rejected, figures: dict[str, float]) -> Product | Rejected:
    if isinstance(outcome, Rejected):
        return outcome
    return replace(outcome, figures={**outcome.figures, **as_json(figures)})


def _checked(mesh, figures: dict[str, float]) -> Product | Rejected:
    if len(mesh.faces) == 0:
        return Rejected("the reconstruction has no faces")
    return Product(mesh, {"faces": len(mesh.faces), **as_json(figures)})
