"""What a model says about itself before anything heavy is loaded; the workflow derives the DAG from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Declaration:
    """The facts about a model that decide which stages run before and after it.

    A model whose facts depend on its settings defines `declare(settings) -> Declaration` in its head too.

    trains: by gradient steps, directly from the training shapes (`fit`), or not at all.
    observes: what `observe` takes of a shape at inference.
    quantity: what `field` returns; "surface" means the model gives meshes by `surface` and has no field.
    training_stages, observation_stages: data stages whose arrays training and inference read, or instances of them
    such as "voxelize/32".
    validates: whether encode and field on held-out shapes are cheap enough to follow the training by them.
    papers: citations of the method.
    parent: the method of the experiment it builds on, whose trained model it is given.
    generates: it draws new shapes (`sample`) and reconstructs none, so it stands in no table of test shapes.
    batched: it trains nothing, but optimises many shapes together on the device.
    starts_from: file whose weights training starts with; its content decides the result.
    start_point: the first observed point has a part of its own; the order of the others does not matter.
    """

    trains: Literal["gradient", "directly", "nothing"]
    observes: Literal["point_cloud", "sdf_samples", "voxels", "view", "nothing"]
    quantity: Literal["occupancy_logit", "occupancy", "signed_distance", "surface"]
    training_stages: tuple[str, ...]
    observation_stages: tuple[str, ...]
    validates: bool
    papers: tuple[str, ...]
    parent: str | None = None
    generates: bool = False
    batched: bool = False
    start_point: bool = False
    starts_from: str | None = None
