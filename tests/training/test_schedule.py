"""Learning rates and shapes of a step at points computed by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.loop import TrainingSettings
from pipeline.training.schedule import ShapeOrder, learning_rate_factor, seed_step


@pytest.mark.parametrize(
    ("settings", "step", "epoch", "factor"),
    [
        ({}, 10**6, 10**4, 1.0),
        ({"warmup_steps": 10}, 0, 1, 0.1),
        ({"warmup_steps": 10}, 9, 1, 1.0),
        ({"schedule": "cosine", "steps": 100}, 0, 1, 1.0),
        ({"schedule": "cosine", "steps": 100}, 50, 1, 0.5),
        ({"schedule": "cosine", "steps": 110, "warmup_steps": 10}, 60, 1, 0.5),
        ({"schedule": "step", "decay_every": 30, "decay_factor": 0.1}, 29, 1, 1.0),
        ({"schedule": "step", "decay_every": 30, "decay_factor": 0.1}, 60, 1, 0.01),
        ({"schedule": "milestones", "milestones": (120, 140), "schedule_unit": "epochs"}, 9999, 119, 1.0),
        ({"schedule": "milestones", "milestones": (120, 140), "schedule_unit": "epochs"}, 0, 120, 0.5),
        ({"schedule": "milestones", "milestones": (120, 140), "schedule_unit": "epochs"}, 0, 141, 0.25),
    ],
)
def test_learning_rate(settings, step, epoch, factor):
    assert learning_rate_factor(TrainingSettings(**settings), step, epoch) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("group", "epoch", "factor"),
    [
        ({}, 1000, 0.25),
        ({"decay_every": 200, "decay_factor": 0.1}, 199, 1.0),
        ({"decay_every": 200, "decay_factor": 0.1}, 200, 0.1),
        ({"decay_every": 200, "decay_factor": 0.1}, 1000, 1e-5),
        ({"decay_every": 200}, 1000, 0.03125),
        ({"decay_factor": 0.1}, 1000, 0.01),
    ],
)
def test_a_group_of_parameters_may_have_steps_of_its_own(group, epoch, factor):
    settings = TrainingSettings(schedule="step", schedule_unit="epochs", decay_every=500, decay_factor=0.5)
    assert learning_rate_factor(settings, 7, epoch, group) == pytest.approx(factor)


@given(shapes=st.integers(1, 40), batch=st.integers(1, 50), seed=st.integers(0, 3))
def test_an_epoch_takes_every_shape_at_most_once_and_leaves_out_less_than_a_batch(shapes, batch, seed):
    order = ShapeOrder(shapes, batch, seed)
    size = min(batch, shapes)
    steps = range(order.steps_per_epoch, 2 * order.steps_per_epoch)
    drawn = [order.at(step) for step in steps]
    assert {epoch for epoch, _ in drawn} == {2}
    seen = torch.cat([one for _, one in drawn]).tolist()
    assert len(seen) == len(set(seen)) == size * len(steps) > shapes - size
    assert set(seen) <= set(range(shapes))


@given(shapes=st.integers(1, 40), batch=st.integers(1, 50), seed=st.integers(0, 3))
def test_an_epoch_that_keeps_its_last_batch_takes_every_shape_once(shapes, batch, seed):
    order = ShapeOrder(shapes, batch, seed, keep_last=True)
    steps = range(order.steps_per_epoch, 2 * order.steps_per_epoch)
    drawn = [order.at(step) for step in steps]
    assert {epoch for epoch, _ in drawn} == {2}
    assert sorted(torch.cat([one for _, one in drawn]).tolist()) == list(range(shapes))
    assert [len(one) for _, one in drawn[:-1]] == [min(batch, shapes)] * (len(steps) - 1)


@pytest.mark.parametrize(("batch", "steps"), [(64, 720_000), (55, 837_000)])
def test_the_steps_of_air_nets_are_its_passes(batch, steps):
    """1500 passes over the training shapes of its split, the last batch of each with the rest."""
    order = ShapeOrder(30_661, batch, seed=0, keep_last=True)
    assert 1500 * order.steps_per_epoch == steps


def test_order_depends_on_seed_and_epoch_and_not_on_what_was_asked_before():
    order = ShapeOrder(100, 100, seed=5)
    first, second = order.at(0)[1], order.at(1)[1]
    assert not torch.equal(first, second)
    assert torch.equal(ShapeOrder(100, 100, seed=5).at(1)[1], second)
    assert not torch.equal(ShapeOrder(100, 100, seed=6).at(0)[1], first)


def test_random_streams_of_a_step_depend_on_it_alone():
    def draws(step: int) -> list[float]:
        generator = torch.Generator()
        seed_step(generator, 3, step)
        return [float(torch.rand(1, generator=generator)), float(torch.rand(1))]

    with torch.random.fork_rng(devices=[]):
        assert draws(7) == draws(7)
        assert len({*draws(7), *draws(8)}) == 4
