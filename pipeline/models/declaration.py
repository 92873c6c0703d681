"""What a model says about itself before anything heavy is loaded; the workflow derives the DAG from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Stage = Literal["sample_surface", "sample_boundary", "sample_volume", "compute_sdf", "voxelize"]


@dataclass(frozen=True)
class Declaration:
    """The facts about a model that decide which stages run before and after it.

    trains: by gradient steps, directly from the training shapes (`fit`), or not at all.
    observes: what `observe` takes of a shape at inference.
    quantity: what `field` returns; "surface" means the model gives meshes by `surface` and has no field.
    training_stages, observation_stages: data stages whose arrays training and inference read.
    validates: whether encode and field on held-out shapes are cheap enough to follow the training by them.
    papers: citations of the method.
    """

    trains: Literal["gradient", "directly", "nothing"]
    observes: Literal["point_cloud", "sdf_samples", "voxels", "view", "nothing"]
    quantity: Literal["occupancy_logit", "occupancy", "signed_distance", "surface"]
    training_stages: tuple[Stage, ...]
    observation_stages: tuple[Stage, ...]
    validates: bool
    papers: tuple[str, ...]
