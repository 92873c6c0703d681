"""Neural Mesh Flow from one picture: an image encoder draws points, which a trained auto-encoder turns to a mesh.

Gupta and Chandraker: Neural Mesh Flow: 3D Manifold Mesh Generation via Diffeomorphic Flows, NeurIPS 2020, arXiv
2007.10973. The encoder learns points by their Chamfer distance to the surface; the auto-encoder does not change.

Deviations:
- Pictures are normalised channel by channel and keep their orientation; the original shifts and scales three columns
  of pixels instead, and swaps rows and columns.
- The points are not centred, so that they say where the mesh lies; the auto-encoder centres them (`centred` there).
- Pictures of the own renderer have ShapeNet's shapes but not its colours.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from pipeline.models.declaration import Declaration
from pipeline.models.stage_checks import missing_view
from pipeline.settings import Settings


class ModelSettings(Settings):
    """Image encoder, picture and training batch. The defaults are the paper's (23,840,584 parameters of its own)."""

    size: Annotated[int, Field(ge=32)] = 137
    """Edge of the pictures that the encoder sees, pixels; views of another size are interpolated."""

    view: NonNegativeInt = 0
    """Number of the view seen at inference; in training it is drawn."""

    width: PositiveInt = 64
    """Channels of ResNet-18's first stage; the further ones have 2, 4 and 8 times as many."""

    features: PositiveInt = 1000
    """Outputs of ResNet-18's last layer, ImageNet's classes."""

    hidden: PositiveInt = 2000
    """Features in each of the two layers that follow."""

    points: PositiveInt = 1024
    """Points drawn from a picture, and points of the surface that they are compared with."""

    imagenet: str | None = None
    """File (.safetensors or .pth) with torchvision's ImageNet weights of ResNet-18, from which training starts; null:
    it starts from random weights."""


class InferenceSettings(Settings):
    """The mesh."""

    subdivision: Annotated[int, Field(ge=0, le=7)] = 4
    """Subdivisions of the icosahedron that is carried onto the shape: 4 gives 2,562 vertices and 5,120 faces."""


DECLARATION = Declaration(
    trains="gradient",
    observes="view",
    quantity="surface",
    training_stages=("sample_surface", "render_views"),
    observation_stages=("render_views",),
    validates=False,
    papers=(
        "Gupta and Chandraker, Neural Mesh Flow: 3D Manifold Mesh Generation via Diffeomorphic Flows, NeurIPS 2020",
    ),
    parent="nmf",
)


def declare(settings: ModelSettings) -> Declaration:
    """With the file that the image encoder starts from."""
    return replace(DECLARATION, starts_from=settings.imagenet)


def check_stages(settings: ModelSettings, inference: InferenceSettings, stages: Settings) -> str | None:
    """What the data stages do not give of what is observed, or None."""
    return missing_view(settings.view, stages, "model.view")


from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.arrays import Mesh, Rejected
from pipeline.models.contract import Model, ShapeArrays, frozen, observed_entry
from pipeline.models.encoders import ResNet18, load_imagenet, normalised, resized
from pipeline.models.nmf import SCALE, NeuralMeshFlow, chamfer, require_batch
from pipeline.training.data import ResidentData, gather_points, random_index


class CloudFromImage(nn.Module):
    """Pictures (B, 3, S, S) with values in [0, 1] to points (B, N, 3) in the auto-encoder's frame."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.resnet = ResNet18(settings.width, settings.features)
        self.fc_1 = nn.Linear(settings.features, settings.hidden)
        self.fc_2 = nn.Linear(settings.hidden, settings.hidden)
        self.fc_3 = nn.Linear(settings.hidden, 3 * settings.points)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.fc_1(self.resnet(normalised(images))))
        return self.fc_3(F.relu(self.fc_2(hidden))).unflatten(1, (-1, 3))


class NeuralMeshFlowSvr(Model):
    """An image encoder before a trained Neural Mesh Flow."""

    declaration = DECLARATION

    def __init__(self, settings: ModelSettings, inference: InferenceSettings, parent: NeuralMeshFlow) -> None:
        super().__init__()
        self.settings, self.inference = settings, inference
        self.parent = frozen(parent)
        self.network = CloudFromImage(settings)

    def prepare(self, arrays: ShapeArrays) -> dict[str, np.ndarray]:
        """{"views": (V, 3, S, S) uint8, "points": (n, 3)}."""
        return {"views": on_black(arrays["views.images"]), "points": arrays["surface.points"]}

    def observe(self, arrays: ShapeArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """{"image": (3, S, S) uint8}: one view on black. Raises Rejected where the shape has no view of that number."""
        images, view = arrays["views.images"], self.settings.view
        if view >= len(images):
            raise Rejected(f"there is no view {view}, only 0 to {len(images) - 1}; change model.view or render more")
        return {"image": on_black(images[view : view + 1])[0]}

    def draw(self, data: ResidentData, shapes: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """One view (B, 3, S, S) uint8 and surface points (B, N, 3) of each shape."""
        views, points = data["views"], data["points"]
        view = random_index(generator, len(shapes), 1, views.shape[1])
        index = random_index(generator, len(shapes), self.settings.points, points.shape[1])
        return {"images": gather_points(views, shapes, view)[:, 0], "targets": gather_points(points, shapes, index)}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Chamfer distance of the points drawn from the pictures, in the auto-encoder's frame."""
        require_batch(len(batch["images"]))
        points = self.network(resized(batch["images"], self.settings.size))
        return {"loss": chamfer(points, batch["targets"] * SCALE)}

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        """The image encoder's."""
        return [{"params": list(self.network.parameters()), "lr": learning_rate}]

    @torch.no_grad()
    def encode(self, observations: dict[str, Tensor], seeds: Sequence[int]) -> dict[str, Tensor]:
        """The auto-encoder's codes of pictures (B, 3, S, S) uint8. Raises ValueError for other pictures."""
        points = self.network(resized(observed_entry(observations, "image", "pictures"), self.settings.size))
        return self.parent.encode({"points": points / SCALE}, seeds)

    def surface(self, code: dict[str, Tensor]) -> list[Mesh]:
        """The auto-encoder's meshes: closed 2-manifolds of genus 0, outward."""
        return self.parent.meshes(code, self.inference.subdivision)

    def figures(self, code: dict[str, Tensor]) -> list[dict[str, float]]:
        """The auto-encoder's."""
        return self.parent.figures(code, self.inference.subdivision)


def on_black(images: np.ndarray) -> np.ndarray:
    """Views (V, S, S, 4) uint8 without their transparency, (V, 3, S, S): black where there is no shape.

    Raises ValueError where the array is another.
    """
    if images.ndim != 4 or images.shape[-1] != 4 or images.shape[1] != images.shape[2] or images.dtype != np.uint8:
        raise ValueError(f"views are (V, S, S, 4) uint8 with square pictures, these are {images.shape} {images.dtype}")
    return np.ascontiguousarray(images[..., :3].transpose(0, 3, 1, 2))


def build(
    settings: ModelSettings, inference: InferenceSettings, train_shapes: int, parent: NeuralMeshFlow
) -> NeuralMeshFlowSvr:
    """The model, its ResNet-18 with ImageNet weights where they are named (ValueError if they cannot be read)."""
    model = NeuralMeshFlowSvr(settings, inference, parent)
    if settings.imagenet:
        load_imagenet(model.network.resnet, settings.imagenet)
    return model
