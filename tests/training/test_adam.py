"""Adam's epsilon as torch and as TensorFlow have it, against their formulas; and norms bounded by group."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.config import PRESETS, read_yaml
from pipeline.models.descent import descend
from pipeline.training.loop import Interrupted, TrainingSettings
from pipeline.training.run import make_optimiser
from tests.training.stub import Ball, numbers, run
from tests.training.test_loop import assert_same, stop_at

RATE = 1e-3
BETAS = (0.9, 0.999)
# Of the size of epsilon, where the two formulas differ most.
GRADIENTS = np.random.default_rng(0).normal(0, 3e-8, 60)


def path(gradients: np.ndarray, epsilon: str) -> np.ndarray:
    """Where a number that starts at 0 is after each step, in 64 bits, by the formulas of the two libraries."""
    place = mean = square = 0.0
    places = []
    for step, gradient in enumerate(gradients, start=1):
        mean = BETAS[0] * mean + (1 - BETAS[0]) * gradient
        square = BETAS[1] * square + (1 - BETAS[1]) * gradient**2
        first = 1 - BETAS[0] ** step
        second = 1 - BETAS[1] ** step
        if epsilon == "uncorrected":
            place -= RATE * np.sqrt(second) / first * mean / (np.sqrt(square) + 1e-8)
        else:
            place -= RATE * (mean / first) / (np.sqrt(square / second) + 1e-8)
        places.append(place)
    return np.array(places)


class Pair(Ball):
    """Two numbers in groups of their own, given gradients by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.other = torch.nn.Parameter(torch.tensor(0.0))

    def parameter_groups(self, learning_rate):
        return [{"params": [one], "lr": learning_rate} for one in (self.radius, self.other)]


def test_the_two_formulas_differ_here():
    assert abs(path(GRADIENTS, "uncorrected")[-1] / path(GRADIENTS, "corrected")[-1]) < 0.5


@pytest.mark.parametrize("optimiser", ["adam", "adamw"])
@pytest.mark.parametrize("epsilon", ["corrected", "uncorrected"])
def test_steps_follow_the_librarys_formula(epsilon, optimiser):
    """The second number moves in every third step only, and counts its own steps."""
    model = Pair().double()
    steps = make_optimiser(model, TrainingSettings(learning_rate=RATE, adam_epsilon=epsilon, optimiser=optimiser))
    places = []
    for number, gradient in enumerate(GRADIENTS):
        model.radius.grad = torch.tensor(gradient)
        model.other.grad = torch.tensor(gradient) if number % 3 == 1 else None
        steps.step()
        places.append(model.radius.item())
    np.testing.assert_allclose(places, path(GRADIENTS, epsilon), rtol=1e-9)
    assert model.other.item() == pytest.approx(path(GRADIENTS[1::3], epsilon)[-1], rel=1e-9)


@pytest.mark.parametrize("epsilon", ["corrected", "uncorrected"])
def test_steps_at_test_time_follow_it_too(epsilon):
    place = torch.zeros((), dtype=torch.float64, requires_grad=True)
    descend({"place": place}, lambda step: GRADIENTS[step] * place, lambda step: RATE, 60, Ball.keeper, [0], epsilon)
    assert place.item() == pytest.approx(path(GRADIENTS, epsilon)[-1], rel=1e-9)


class Faint(Ball):
    """With gradients of the size of epsilon."""

    def loss(self, batch):
        return {name: 1e-8 * value for name, value in super().loss(batch).items()}


def test_an_interrupted_training_goes_on_with_the_same_epsilon(tmp_path):
    data = numbers(1, 2, 3)
    settings = {"steps": 60, "adam_epsilon": "uncorrected"}
    straight = run(Faint(), data, tmp_path / "straight", **settings)
    with pytest.raises(Interrupted):
        run(Faint(), data, tmp_path / "broken", report=stop_at(20), **settings)
    assert_same(run(Faint(), data, tmp_path / "broken", **settings), straight)
    other = run(Faint(), data, tmp_path / "other", steps=60)
    assert float(other.weights["radius"]) > 1.2 * float(straight.weights["radius"])


class TwoSides(Pair):
    """A number with large gradients and one with small ones."""

    def loss(self, batch):
        return {"loss": 100 * self.radius + 0.25 * self.other + 0 * batch["number"].sum()}


@pytest.mark.parametrize(("of", "bounded"), [("all", (0.5, 0.00125)), ("group", (0.5, 0.25))])
def test_norms_are_bounded_together_or_by_group(of, bounded, tmp_path):
    model = TwoSides()
    run(model, numbers(1, 2), tmp_path, steps=3, gradient_clip=0.5, gradient_clip_of=of)
    assert (model.radius.grad.item(), model.other.grad.item()) == pytest.approx(bounded, rel=1e-4)


def test_presets_of_tensorflow_codes_have_its_epsilon():
    """IM-GAN, and Neural-Pull's code of the paper and that of pictures; IM-AE and IM-SVR follow the PyTorch code."""
    having = set()
    for path in PRESETS.glob("*.yaml"):
        for block in read_yaml(path).get("experiments", ()):
            parts = {**block.get("training", {}), **block.get("inference", {})}
            having |= {block["name"]} if parts.get("adam_epsilon") == "uncorrected" else set()
    assert having == {"imnet-gan", "neuralpull-tf", "neuralpull-image", "neuralpull-image-best-of-24"}
