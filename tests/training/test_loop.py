"""The training loop: what it computes, when it stops, and that an interruption changes nothing."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch

from pipeline.arrays import Rejected
from pipeline.models import registry
from pipeline.training import checkpoint
from pipeline.training.average import Average
from pipeline.training.checkpoint import CheckpointMismatch
from pipeline.training.data import ResidentData
from pipeline.training.loop import Interrupted, NonFiniteLoss
from tests.models.shapes import BLOCKS, TURNED, ball_arrays, block_arrays, tiny_model
from tests.training.stub import Ball, numbers, run

GRADIENT = [n for n in registry.available_models() if registry.head(n).DECLARATION.trains == "gradient"]


def stop_at(when: int):
    """A report that asks the process to stop, as a scheduler does."""
    return lambda step, total, values: os.kill(os.getpid(), signal.SIGTERM) if step == when else None


def die_at(when: int):
    """A report that ends the run without any chance to save, as a kill does."""

    def report(step: int, total: int, values: dict) -> None:
        if step == when:
            raise KeyboardInterrupt

    return report


def assert_same(one, other) -> None:
    assert one.weights.keys() == other.weights.keys()
    for name, tensor in one.weights.items():
        assert torch.equal(tensor, other.weights[name]), name
    assert one.history == other.history
    assert (one.best_step, one.steps_done) == (other.best_step, other.steps_done)
    assert (one.notes, one.validation) == (other.notes, other.validation)
    for name, tensor in one.last_weights.items():
        assert torch.equal(tensor, other.last_weights[name]), name


@pytest.fixture(scope="module")
def shapes() -> list[dict[str, np.ndarray]]:
    return [block_arrays(BLOCKS, 1000), block_arrays(TURNED, 1000), ball_arrays(0.3, count=1000), ball_arrays(0.2)]


# Methods whose originals keep the last batch of an epoch, which may be of one shape.
LONE_SHAPES = ("onet", "convonet", "ifnet", "airnet")
SETTINGS = {"deepsdf": {"dropout": 0.2}, "onet": {"queries": 64}}


@pytest.mark.parametrize("name", GRADIENT)
@pytest.mark.parametrize("interruption", ["signal", "kill"])
def test_interrupted_run_ends_as_an_undisturbed_one_bit_for_bit(name, interruption, shapes, tmp_path):
    """Every moving part is on: three shapes in batches of two, schedule, average, validation, rows not yet full."""
    settings = {
        "steps": 200,
        "keep_last_batch": name in LONE_SHAPES,
        "learning_rate": 2e-3,
        "schedule": "cosine",
        "gradient_clip": 10.0,
        "ema_decay": 0.9,
        "validate_every": 70,
        "validation_points": 200,
    }

    def attempt(folder, **more):
        model = tiny_model(name, 3, **SETTINGS.get(name, {}))
        data = ResidentData.for_model(model, shapes[:3])
        return run(
            model, data, folder, [shapes[3]], runtime={"log_every": 30, **more.pop("runtime", {})}, **settings, **more
        )

    straight = attempt(tmp_path / "straight")
    broken = tmp_path / "broken"
    if interruption == "signal":
        with pytest.raises(Interrupted, match="stopped after step 100 of 200"):
            attempt(broken, report=stop_at(100))
        saved = 100
    else:
        with pytest.raises(KeyboardInterrupt):
            attempt(broken, report=die_at(130), runtime={"checkpoint_minutes": 0})
        saved = 120
    resumed = attempt(broken)
    assert resumed.steps_made == 200 - saved
    assert_same(resumed, straight)


def test_signal_handlers_threads_and_random_stream_are_given_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM), torch.get_num_threads(), torch.get_rng_state()
    run(Ball(), numbers(1, 2, 3), tmp_path)
    assert before[:2] == (signal.getsignal(signal.SIGTERM), torch.get_num_threads())
    assert torch.equal(before[2], torch.get_rng_state())


def test_more_steps_continue_a_finished_run(tmp_path):
    data = numbers(1, 2, 3)
    run(Ball(), data, tmp_path / "a", steps=100)
    longer = run(Ball(), data, tmp_path / "a", steps=200)
    straight = run(Ball(), data, tmp_path / "b", steps=200)
    assert (longer.steps_made, longer.steps_done) == (100, 200)
    assert_same(longer, straight)


def test_more_steps_of_a_schedule_that_depends_on_them_start_over_and_say_so(tmp_path):
    data = numbers(1, 2, 3)
    run(Ball(), data, tmp_path / "a", steps=100, schedule="cosine")
    longer = run(Ball(), data, tmp_path / "a", steps=200, schedule="cosine")
    straight = run(Ball(), data, tmp_path / "b", steps=200, schedule="cosine")
    assert longer.steps_made == 200
    assert "starting over" in longer.incidents[0] and "100 to 200" in longer.incidents[0]
    assert_same(longer, straight)


def test_fewer_steps_than_done_start_over_and_say_so(tmp_path):
    run(Ball(), numbers(1, 2), tmp_path, steps=100)
    shorter = run(Ball(), numbers(1, 2), tmp_path, steps=50)
    assert (shorter.steps_done, shorter.steps_made) == (50, 50)
    assert "beyond the 50 asked for" in shorter.incidents[0]


def test_finished_run_is_not_repeated(tmp_path):
    first = run(Ball(), numbers(1, 2, 3), tmp_path)
    again = run(Ball(), numbers(1, 2, 3), tmp_path)
    assert again.steps_made == 0
    assert_same(again, first)


def drifting(folder, steps: int, **more):
    """A ball that grows past the right radius: the best weights are those of some validation in the middle.

    Three shapes in batches of two and one, rows of ten steps, validations every twenty.
    """
    held_out = ball_arrays(0.3, count=500)
    settings = {"learning_rate": 1e-2, "keep_last_batch": True, "ema_decay": 0.5, "validate_every": 20}
    return run(Ball(0.0), numbers(0.5, 0.6, 0.7), folder, [held_out], steps=steps, **settings, **more)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return drifting(tmp_path_factory.mktemp("undisturbed"), 80)


@pytest.mark.parametrize("ends", [(45,), (40,), (50,), (60,), (7, 33, 79)])
def test_a_run_that_ended_before_and_goes_on_is_as_if_it_had_not_ended(ends, undisturbed, tmp_path):
    """The end of a run is validated and makes a row out of turn: neither is a part of the longer run."""
    for steps in ends:
        ended = drifting(tmp_path, steps)
        assert ended.history[-1]["step"] == steps and "validation_iou" in ended.history[-1]
        assert_same(drifting(tmp_path, steps), ended)
    longer = drifting(tmp_path, 80)
    assert longer.steps_made == 80 - ends[-1]
    assert_same(longer, undisturbed)
    assert [row["step"] for row in longer.history if "validation_iou" in row] == [20, 40, 60, 80]


def test_the_end_of_a_run_may_be_its_best_and_is_not_the_best_of_a_longer_one(undisturbed, tmp_path):
    ious = {row["step"]: row["validation_iou"] for row in undisturbed.history if "validation_iou" in row}
    assert undisturbed.best_step == max(ious, key=ious.get) == 40
    between = drifting(tmp_path, 35)
    assert between.best_step == 35
    assert between.history[-1]["validation_iou"] > ious[40]
    assert_same(drifting(tmp_path, 80), undisturbed)


@pytest.mark.parametrize("step", [1, 19, 20, 41, 79])
def test_a_run_stopped_at_any_step_ends_as_an_undisturbed_one(step, undisturbed, tmp_path):
    class Stopping(Ball):
        def draw(self, data, shapes, generator):
            if len(self.calls) == step - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().draw(data, shapes, generator)

    settings = {"learning_rate": 1e-2, "keep_last_batch": True, "ema_decay": 0.5, "validate_every": 20}
    held_out = ball_arrays(0.3, count=500)
    with pytest.raises(Interrupted, match=f"stopped after step {step} of 80"):
        run(Stopping(0.0), numbers(0.5, 0.6, 0.7), tmp_path, [held_out], steps=80, **settings)
    assert_same(drifting(tmp_path, 80), undisturbed)


def test_a_state_is_written_by_its_owner_only(tmp_path):
    """Whoever lost the folder to another process leaves it as it is."""

    def lost():
        raise SystemExit("another job works on it")

    with pytest.raises(SystemExit, match="another job"):
        run(Ball(), numbers(1, 2), tmp_path, may_save=lost)
    assert checkpoint.load_state(tmp_path) is None


def test_held_out_shapes_are_taken_from_every_category(tmp_path):
    """As the first by name they would all be airplanes."""
    names = [f"airplane/{i}" for i in range(30)] + [f"chair/{i}" for i in range(30)] + ["lamp/0"]
    shapes = [ball_arrays(0.3, count=50)] * len(names)
    settings = {"validation_shapes": 9, "steps": 2}
    result = run(Ball(0.3), numbers(1, 2), tmp_path / "some", shapes, validation_names=names, **settings)
    assert result.validation == {"airplane": 4, "chair": 4, "lamp": 1}
    settings["validation_shapes"] = "all"
    result = run(Ball(0.3), numbers(1, 2), tmp_path / "all", shapes, validation_names=names, **settings)
    assert result.validation == {"airplane": 30, "chair": 30, "lamp": 1}


def test_what_is_seen_of_a_held_out_shape_depends_on_its_name_alone(tmp_path):
    class Noting(Ball):
        def observe(self, arrays, rng):
            seen = super().observe(arrays, rng)
            noises.append(float(seen["noise"][0]))
            return seen

    noises: list[float] = []
    shape = ball_arrays(0.3, count=50)
    run(Noting(0.3), numbers(1), tmp_path / "a", [shape], validation_names=["chair/b"])
    run(Noting(0.3), numbers(1), tmp_path / "b", [shape, shape], validation_names=["chair/a", "chair/b"])
    alone, first, second = noises
    assert alone == second != first


def test_shapes_without_an_inside_point_have_no_iou_and_harm_nothing(tmp_path):
    result = run(Ball(0.3), numbers(1, 2), tmp_path, [ball_arrays(0.0, count=50)], validate_every=10)
    assert not any("validation_iou" in row for row in result.history)
    assert result.best_step == 20


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        ((1, 2, 3), {"learning_rate": 0.2}, "learning_rate: 0.1, now 0.2"),
        ((1, 2, 3, 4), {}, "shapes: "),
    ],
)
def test_state_of_another_run_is_refused_with_what_differs(data, settings, message, tmp_path):
    run(Ball(), numbers(1, 2, 3), tmp_path)
    with pytest.raises(CheckpointMismatch, match=message):
        run(Ball(), numbers(*data), tmp_path, **{"steps": 40, **settings})


def test_state_of_another_model_is_refused_with_the_tensors(tmp_path):
    class Cylinder(Ball):
        def __init__(self):
            super().__init__()
            self.height = torch.nn.Parameter(torch.zeros(2))

    run(Ball(), numbers(1, 2), tmp_path)
    with pytest.raises(CheckpointMismatch, match="missing: height"):
        run(Cylinder(), numbers(1, 2), tmp_path)


def test_bad_loss_stops_within_ten_steps_names_the_shapes_and_keeps_the_good_state(tmp_path):
    data = numbers(1, 2, 3)
    model = Ball(nan_at=(57,))
    steps = []
    with pytest.raises(NonFiniteLoss, match="at step 57") as error:
        run(model, data, tmp_path, steps=100, runtime={"checkpoint_minutes": 0}, report=lambda s, *_: steps.append(s))
    for shape in model.calls[56][1]:
        assert data.names[shape] in str(error.value)
    assert len(model.calls) <= 66
    assert checkpoint.load_state(tmp_path).step == 50
    assert run(Ball(), data, tmp_path, steps=100).steps_made == 50


def test_bad_array_is_named(tmp_path):
    with pytest.raises(NonFiniteLoss, match="not finite are the arrays of: chair/1"):
        run(Ball(), numbers(1, np.nan, 3), tmp_path)
    assert checkpoint.load_state(tmp_path) is None


def test_weights_that_broke_in_the_last_step_are_not_saved(tmp_path):
    class Breaking(Ball):
        def loss(self, batch):
            losses = super().loss(batch)
            if len(self.calls) == 20:
                self.radius.register_hook(lambda gradient: gradient * float("nan"))
            return losses

    with pytest.raises(NonFiniteLoss, match="weights are not finite at step 20"):
        run(Breaking(), numbers(1, 2), tmp_path)
    assert checkpoint.load_state(tmp_path) is None


def test_no_training_shapes_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no training shapes"):
        run(Ball(), ResidentData({}, []), tmp_path)


def test_rows_hold_means_over_their_steps(tmp_path):
    values = []
    result = run(
        Ball(), numbers(1, 2, 3), tmp_path, steps=25, runtime={"log_every": 10}, report=lambda *row: values.append(row)
    )
    assert [row["step"] for row in result.history] == [10, 20, 25]
    assert [row["epoch"] for row in result.history] == [10, 20, 25]
    for row in result.history:
        assert row["twice"] == pytest.approx(2 * row["loss"])
    assert [(step, total) for step, total, _ in values] == [(10, 25), (20, 25), (25, 25)]
    assert values[0][2]["loss"] == result.history[0]["loss"]


def worsening(folder, **more):
    """A run that starts with the right radius and is trained away from it."""
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (3000, 3)).astype(np.float32)
    held_out = {"volume.points": points, "volume.occupancies": np.linalg.norm(points, axis=1) < 0.3}
    settings = {"learning_rate": 2e-3, "steps": 60, "validate_every": 20}
    return run(Ball(0.3), numbers(0.1, 0.1), folder, [held_out], **settings, **more)


def test_held_out_shapes_without_an_inside_have_no_iou_and_the_state_is_saved(tmp_path):
    held_out = [ball_arrays(0.0, count=500)]
    settings = {"steps": 60, "validate_every": 20}
    with pytest.raises(Interrupted):
        run(Ball(0.3), numbers(0.1, 0.1), tmp_path, held_out, report=stop_at(30), **settings)
    result = run(Ball(0.3), numbers(0.1, 0.1), tmp_path, held_out, **settings)
    assert result.history and all("validation_iou" not in row for row in result.history)


def test_best_weights_survive_an_interruption(tmp_path):
    with pytest.raises(Interrupted):
        worsening(tmp_path / "broken", report=stop_at(30))
    assert_same(worsening(tmp_path / "broken"), worsening(tmp_path / "straight"))


def test_best_weights_are_those_of_the_best_validation(tmp_path):
    result = worsening(tmp_path)
    ious = {row["step"]: row["validation_iou"] for row in result.history if "validation_iou" in row}
    assert list(ious) == [20, 40, 60]
    assert result.best_step == 20 == max(ious, key=ious.get)
    radius = float(result.weights["radius"])
    assert ious[20] == pytest.approx((radius / 0.3) ** 3, abs=0.02)
    assert float(result.last_weights["radius"]) < radius


def test_without_validation_shapes_the_last_weights_are_the_best(tmp_path):
    result = run(Ball(), numbers(1, 2), tmp_path)
    assert result.best_step == 20
    assert torch.equal(result.weights["radius"], result.last_weights["radius"])


class Choosy(Ball):
    """Sees nothing of a shape without points inside."""

    def observe(self, arrays, rng):
        if not arrays["volume.occupancies"].any():
            raise Rejected("nothing is inside")
        return super().observe(arrays, rng)


def test_held_out_shapes_that_cannot_be_observed_are_left_out_and_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(checkpoint.LOG, "propagate", True)
    ball, empty = ball_arrays(0.3, count=500), ball_arrays(0.0, count=500)
    alone = run(Choosy(), numbers(0.3), tmp_path / "alone", [ball])
    result = run(Choosy(), numbers(0.3), tmp_path / "more", [ball, empty], validation_names=["chair/a", "chair/b"])
    assert result.history == alone.history and alone.notes == ()
    assert result.notes == ("1 of 2 validation shapes left out, the first chair/b: nothing is inside",)
    assert "chair/b is left out of the validation: nothing is inside" in caplog.text
    none = run(Choosy(), numbers(0.3), tmp_path / "none", [empty])
    assert none.notes == ("1 of 1 validation shapes left out, the first held-out 0: nothing is inside",)
    assert "validation_iou" not in none.history[-1] and none.best_step == none.steps_done


def test_held_out_shapes_of_unequal_sample_counts_are_told_before_the_first_step(tmp_path):
    shapes = [ball_arrays(0.3, count=500), ball_arrays(0.3, count=400)]
    with pytest.raises(ValueError, match=r"held-out 1 has 400 labelled volume points .* those before it have 500"):
        run(Ball(), numbers(0.3), tmp_path, shapes)


def test_gradient_is_clipped(tmp_path):
    model = Ball()
    run(model, numbers(100, 100), tmp_path, gradient_clip=0.5)
    assert float(model.radius.grad.abs()) == pytest.approx(0.5, rel=1e-4)


def test_average_follows_its_recursion_and_takes_the_models_place_for_a_while():
    model = Ball(0.0)
    average = Average(model, 0.75)
    for value in (1.0, 3.0):
        model.radius.data.fill_(value)
        average.update()
    with average.in_place():
        assert model.radius.item() == pytest.approx(0.75 * 0.25 + 0.25 * 3)
    assert model.radius.item() == 3.0


def test_tensorboard_and_rows_say_the_same(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = run(Ball(), numbers(1, 2), tmp_path, runtime={"tensorboard": True})
    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    scalars = {event.step: event.value for event in events.Scalars("loss")}
    assert scalars == pytest.approx({row["step"]: row["loss"] for row in result.history})
