"""IM-GAN: new shapes from noise, by a Wasserstein GAN with gradient penalty on the codes of a trained IM-AE.

Chen and Zhang: Learning Implicit Fields for Generative Shape Modeling, CVPR 2019, arXiv 1812.02822; the penalty by
Gulrajani et al., Improved Training of Wasserstein GANs, NeurIPS 2017, arXiv 1704.00028. As in the author's code, the
critic is trained to give low values to real codes.

Two networks take turns: of every `critic_steps` + 1 steps of the training loop the last moves the generator and the
others the critic, each with a batch of its own. A step leaves the other network, and what Adam knows of it, as it is.
So an iteration of the original, one step of each, is two steps here; "loss" is that of the network that moves.

Deviations:
- The original takes the same shapes together in every epoch, since it shuffles an index it does not use. Here every
  epoch is shuffled.
- Critic and generator see the training shapes of different batches, so an epoch here shows the critic
  critic_steps / (critic_steps + 1) of them.
- The released 13-category code asks for codes of 128 where its auto-encoder gives 256, and stops; the length follows
  the parent here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from pipeline.models.declaration import Declaration
from pipeline.settings import Settings


class ModelSettings(Settings):
    """Widths and game. The defaults are the author's code; canonical are critic_steps 5 and epsilon "shape"."""

    noise: PositiveInt = 128
    """Length of the noise that a code is made from."""

    noise_std: PositiveFloat = 0.2
    """Standard deviation of the noise."""

    hidden: PositiveInt = 2048
    """Width of the two hidden layers of either network."""

    initial_std: PositiveFloat = 0.02
    """Standard deviation of the initial weights; narrow networks start better with more."""

    critic_steps: PositiveInt = 1
    """Steps of the critic before each step of the generator."""

    epsilon: Literal["batch", "shape"] = "batch"
    """Where between a real and a generated code the penalty looks: at one random share for the whole batch, or at one
    for every shape."""

    penalty: NonNegativeFloat = 10.0
    """Weight of the gradient penalty."""

    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Decay of Adam's mean of gradients."""

    grid: Literal[64, 128, 256] = 64
    """Voxels along an edge of the grid the parent encodes; as in the parent."""


class InferenceSettings(Settings):
    """A code is one pass of the generator; nothing to set."""


DECLARATION = Declaration(
    trains="gradient",
    observes="nothing",
    quantity="occupancy",
    training_stages=("voxelize/64",),
    observation_stages=(),
    validates=False,
    papers=(
        "Chen and Zhang, Learning Implicit Fields for Generative Shape Modeling, CVPR 2019",
        "Gulrajani et al., Improved Training of Wasserstein GANs, NeurIPS 2017",
    ),
    parent="imnet",
    generates=True,
)


def declare(settings: ModelSettings) -> Declaration:
    """The facts for a grid."""
    return replace(DECLARATION, training_stages=(f"voxelize/{settings.grid}",))


def check_parent(settings: ModelSettings, parent: Settings) -> str | None:
    """What is wrong with the parent's model settings, or None."""
    if parent.grid != settings.grid:
        return f"model.grid is {settings.grid}, but the parent encodes grids of {parent.grid}; use the same"
    return None


from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.contract import ShapeArrays
from pipeline.models.imnet import SLOPE, ImNet
from pipeline.models.imnet_codes import OnCodes
from pipeline.training.data import ResidentData


class Perceptron(nn.Module):
    """Three linear layers with leaky rectifiers between."""

    def __init__(self, features_in: int, hidden: int, features_out: int, std: float) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(features_in, hidden)
        self.linear_2 = nn.Linear(hidden, hidden)
        self.linear_3 = nn.Linear(hidden, features_out)
        for layer in self.children():
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.linear_1(x), SLOPE)
        return self.linear_3(F.leaky_relu(self.linear_2(x), SLOPE))


class LatentGan(nn.Module):
    """Generator of codes and critic."""

    def __init__(self, settings: ModelSettings, code: int) -> None:
        super().__init__()
        self.generator = Perceptron(settings.noise, settings.hidden, code, settings.initial_std)
        self.critic = Perceptron(code, settings.hidden, 1, settings.initial_std)

    def forward(self, noise: Tensor) -> Tensor:
        """Codes (B, code), entries in (0, 1), of noise (B, noise)."""
        return torch.sigmoid(self.generator(noise))


def gradient_penalty(critic: Callable[[Tensor], Tensor], codes: Tensor) -> Tensor:
    """Mean over codes (B, L) of (the norm of the critic's gradient - 1)^2; differentiable in the critic's weights."""
    codes = codes.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(critic(codes).sum(), codes, create_graph=True)
    return (gradient.norm(dim=1) - 1).square().mean()


class ImNetGan(OnCodes):
    """Generator and critic over the codes of an IM-AE."""

    def __init__(self, settings: ModelSettings, parent: ImNet) -> None:
        super().__init__(parent)
        self.settings = settings
        self.declaration = declare(settings)
        self.network = LatentGan(settings, parent.settings.code)

    def prepare(self, arrays: ShapeArrays) -> dict[str, np.ndarray]:
        """{"code": (L,) float32}: the shape's code. Raises Rejected for an empty voxel grid."""
        return {"code": self.code_of(arrays)}

    def observe(self, arrays: ShapeArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Nothing: no arrays."""
        return {}

    def draw(self, data: ResidentData, shapes: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Real codes (B, L), noise (B, noise), and the penalty's shares (B, 1) in [0, 1]."""
        device = generator.device
        shares = 1 if self.settings.epsilon == "batch" else len(shapes)
        return {
            "codes": data["code"].index_select(0, shapes.to(data["code"].device)).to(device),
            "noise": self._noise(len(shapes), generator),
            "epsilon": torch.rand((shares, 1), generator=generator, device=device).expand(len(shapes), 1),
        }

    def _noise(self, count: int, generator: torch.Generator) -> Tensor:
        size = (count, self.settings.noise)
        return self.settings.noise_std * torch.randn(size, generator=generator, device=generator.device)

    def moves_critic(self) -> bool:
        """Whose turn the current step is."""
        turns = self.settings.critic_steps + 1
        return self.step % turns < self.settings.critic_steps

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss of the network whose turn it is; "real" and "fake" are the critic's mean values."""
        return self._critic_loss(batch) if self.moves_critic() else self._generator_loss(batch)

    def _critic_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        critic, codes, epsilon = self.network.critic, batch["codes"], batch["epsilon"]
        with torch.no_grad():
            fakes = self.network(batch["noise"])
        real, fake = critic(codes).mean(), critic(fakes).mean()
        penalty = gradient_penalty(critic, epsilon * codes + (1 - epsilon) * fakes)
        return {"loss": real - fake + self.settings.penalty * penalty, "real": real, "fake": fake}

    def _generator_loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        fake = self.network.critic(self.network(batch["noise"])).mean()
        with torch.no_grad():
            real = self.network.critic(batch["codes"]).mean()
        return {"loss": fake, "real": real, "fake": fake}

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        """The critic's, then the generator's, with the original's decay of moments."""
        betas = (self.settings.beta1, 0.999)
        sides = (self.network.critic, self.network.generator)
        return [{"params": list(side.parameters()), "lr": learning_rate, "betas": betas} for side in sides]

    def active_groups(self) -> tuple[int]:
        """The critic's group or the generator's."""
        return (0,) if self.moves_critic() else (1,)

    @torch.no_grad()
    def encode(self, observations: dict[str, Tensor], seeds: Sequence[int]) -> dict[str, Tensor]:
        """{"code": (B, L)}: a new shape for each seed."""
        noise = [self._noise(1, torch.Generator().manual_seed(seed)) for seed in seeds]
        return {"code": self.network(torch.cat(noise).to(self.device))}

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """{"code": (count, L)} of new shapes."""
        return {"code": self.network(self._noise(count, generator).to(self.device))}


def build(settings: ModelSettings, inference: InferenceSettings, train_shapes: int, parent: ImNet) -> ImNetGan:
    return ImNetGan(settings, parent)
