"""What every model offers to training and reconstruction, so that neither asks which model it has.

Letters: B shapes, N queries per shape, S training shapes. All coordinates here are canonical; a model that works in
another frame converts inside its own file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.arrays import Mesh
from pipeline.models import registry
from pipeline.models.declaration import Declaration
from pipeline.settings import Settings

if TYPE_CHECKING:
    from pipeline.training.data import ResidentData

ShapeArrays = Mapping[str, np.ndarray]


class Keeper:
    """Keeps the state of a long test-time optimisation; this one keeps nothing."""

    def restore(self) -> dict[str, Tensor] | None:
        """The state kept last of the very same optimisation, on the CPU; None at its beginning."""
        return None

    def note(self, state: Callable[[], dict[str, Tensor]]) -> None:
        """Called between steps: asks for the state where it is time to keep it, and may raise to stop there."""


class Model(nn.Module, ABC):
    """A model of shapes.

    declaration: the facts the workflow knows about it. network: the bare network with the original's tensor names, in
    the original's frame: network(queries (B, N, 3), observation) gives its raw outputs (B, N). epoch: passes over the
    training shapes, counted from 1; step, counted from 0: the loop sets both before every step. How many there will be
    is not told, since more of them continue a run. keeper: where a long `encode` keeps its state.

    A model with a parent (`Declaration.parent`) keeps it as its submodule `parent`: frozen, in evaluation mode, its
    weights in the child's checkpoint.
    """

    declaration: Declaration
    network: nn.Module
    parent: Model  # no value here, which would hide the submodule of that name
    epoch: int = 1
    step: int = 0
    keeper: Keeper = Keeper()

    @property
    def level(self) -> float:
        """Where the surface lies: a probability for both occupancies, a canonical distance for signed distances."""
        return 0.0 if self.declaration.quantity == "signed_distance" else 0.5

    @property
    def device(self) -> torch.device:
        """Where the weights are; the CPU for a model without any."""
        tensors = (*self.parameters(), *self.buffers())
        return tensors[0].device if tensors else torch.device("cpu")

    def prepare(self, arrays: ShapeArrays) -> dict[str, np.ndarray]:
        """What training keeps of one shape's arrays. Raises Rejected where the shape cannot be trained on."""
        return dict(arrays)

    @abstractmethod
    def observe(self, arrays: ShapeArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """What the model sees of one shape at inference."""

    def draw(self, data: ResidentData, shapes: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """A training batch of the shapes (B,) of `data`, on the device of the generator."""
        raise NotImplementedError(f"{type(self).__name__} is not trained by gradient steps")

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """ "loss" is what is minimised; the other entries are parts of it worth logging."""
        raise NotImplementedError(f"{type(self).__name__} is not trained by gradient steps")

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        """Parameters with their learning rates, in the form optimisers take.

        A group may have a "decay_every" and a "decay_factor" of its own in place of the training's.
        """
        return [{"params": [p for p in self.parameters() if p.requires_grad], "lr": learning_rate}]

    def active_groups(self) -> Sequence[int] | None:
        """Numbers of the parameter groups that the present step moves, where that is not all of them.

        Adversaries take turns so: `loss` is the one whose turn it is, by `step`.
        """
        return None

    def fit(self, data: ResidentData) -> None:
        """Set the model's state directly from the training shapes."""
        raise NotImplementedError(f"{type(self).__name__} is not fitted directly")

    @abstractmethod
    def encode(self, observations: dict[str, Tensor], seeds: Sequence[int]) -> dict[str, Tensor]:
        """Codes of B shapes from their stacked observations, every entry with leading B.

        One seed per shape; a shape's code does not depend on the others of the batch, beyond rounding.
        """

    def sample(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Codes of new shapes, every entry with leading `count`, on the device of the weights."""
        raise NotImplementedError(f"{type(self).__name__} draws no new shapes")

    def field(self, code: dict[str, Tensor], queries: Tensor) -> Tensor:
        """The declared quantity at queries (B, N, 3), as (B, N)."""
        raise NotImplementedError(f"{type(self).__name__} has no field; it gives meshes by surface()")

    def surface(self, code: dict[str, Tensor]) -> list[Mesh]:
        """One mesh per shape, faces outward."""
        raise NotImplementedError(f"{type(self).__name__} gives no meshes of its own; extract them from field()")

    def figures(self, code: dict[str, Tensor]) -> list[dict[str, float]]:
        """Per shape, what the ledger says of its mesh beside the number of faces; by default nothing.

        Here a test-time optimisation reports how it ended, from what `encode` left in the code.
        """
        return [{} for _ in next(iter(code.values()))]


def build_model(
    name: str, settings: Settings, inference: Settings, train_shapes: int, seed: int, parent: Model | None = None
) -> Model:
    """A model with seeded initial weights. `settings`, `inference`: instances of its two settings classes.

    parent: the trained model it builds on, for methods that declare one.
    """
    module = registry.load(name)
    given = (parent,) if module.DECLARATION.parent else ()
    with seeded_init(seed):
        return module.build(settings, inference, train_shapes, *given)


def build_from(description: Mapping[str, Any], train_shapes: int, seed: int = 0) -> Model:
    """A model with seeded initial weights from plain values, and the one it builds on.

    description: "method", "model", and perhaps "inference" and "parent", the latter with the same entries.
    """
    module = registry.load(description["method"])
    parent = build_from(description["parent"], train_shapes) if description.get("parent") else None
    settings = module.ModelSettings(**description["model"])
    inference = module.InferenceSettings(**description.get("inference", {}))
    return build_model(description["method"], settings, inference, train_shapes, seed, parent)


def frozen(parent: Model) -> Model:
    """The parent as a child keeps it: no gradients, evaluation mode for good."""
    parent.requires_grad_(False).eval()
    parent.train = lambda mode=True: parent  # a child that trains leaves its parent's normalisation alone
    return parent


@contextmanager
def seeded_init(seed: int) -> Iterator[None]:
    """Initial weights drawn inside depend on the seed alone, and the global stream is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def observed_entry(seen: Mapping[str, Tensor], name: str, what: str) -> Tensor:
    """An entry of the observations that `encode` is given. Raises ValueError that says what is needed and what came.

    what: how the message calls it, such as "point clouds".
    """
    if name not in seen:
        given = ", ".join(f"{key} {tuple(tensor.shape)}" for key, tensor in sorted(seen.items())) or "nothing"
        raise ValueError(f"this model observes {what} under the name {name!r}; it was given {given}")
    return seen[name]


def observed_cloud(seen: Mapping[str, Tensor], name: str = "points") -> Tensor:
    """The observed clouds (B, M, 3), M at least 1. Raises ValueError for other arrays."""
    points = observed_entry(seen, name, "point clouds")
    if points.ndim != 3 or points.shape[-1] != 3 or points.shape[1] == 0:
        raise ValueError(f"observed clouds are (B, M, 3) with at least one point, these are {tuple(points.shape)}")
    return points


def observed_voxels(seen: Mapping[str, Tensor], resolution: int) -> Tensor:
    """The observed "voxels" (B, R, R, R), R the resolution. Raises ValueError for other arrays and resolutions."""
    voxels = observed_entry(seen, "voxels", "voxels")
    if voxels.ndim != 4 or voxels.shape[1:] != (resolution,) * 3:
        edges = ", ".join(["B", *[str(resolution)] * 3])
        raise ValueError(f"observed voxels are ({edges}), these are {tuple(voxels.shape)}")
    return voxels


def stack_observations(observations: Sequence[Mapping[str, np.ndarray]], device: torch.device) -> dict[str, Tensor]:
    """Observations of several shapes as tensors with leading B."""
    keys = observations[0].keys() if observations else ()
    return {key: torch.from_numpy(np.stack([one[key] for one in observations])).to(device) for key in keys}
