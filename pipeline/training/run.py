"""One training run: its steps, rows, validations and states."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipeline.models.contract import Model, ShapeArrays
from pipeline.settings import canonical_json
from pipeline.training import checkpoint
from pipeline.training.adam import leave_epsilon_uncorrected
from pipeline.training.average import Average
from pipeline.training.checkpoint import CheckpointMismatch, State
from pipeline.training.data import ResidentData, left_out_note
from pipeline.training.held_out import count_categories, even_subset
from pipeline.training.schedule import ShapeOrder, learning_rate_factor, seed_step
from pipeline.training.sharing import fabric_for, own_parts
from pipeline.training.validation import HeldOut

if TYPE_CHECKING:
    from pipeline.training.loop import RuntimeSettings, TrainingSettings

CHECK_EVERY = 10  # steps between two looks at the losses, each of which waits for the device

Row = dict[str, float]
Report = Callable[[int, int, Row], None]
Write = Callable[[Row], None]


class NonFiniteLoss(RuntimeError):
    """The loss or the weights are no longer finite; the message names the step and the shapes of its batch."""


class Interrupted(RuntimeError):
    """The run was asked to stop; its state is saved, and the same call continues it."""


@dataclass(frozen=True)
class TrainResult:
    """What a training gives.

    weights: the best by validation, else the last; both on the CPU. history: one row per log interval and validation.
    steps_done: of the whole run. best_step: the step of `weights`. notes: what a reader should know of the result, such
    as shapes left out. validation: category → number of held-out shapes that decide which weights are the best. All
    these are the same however the run got there; the rest is not, and belongs to no result: steps_made, those of
    steps_done that this call made, and incidents, such as why a run started over. leads: False in the processes that
    the first one started to share its work.
    """

    weights: dict[str, Tensor]
    last_weights: dict[str, Tensor]
    history: list[Row]
    steps_done: int
    best_step: int
    notes: tuple[str, ...] = ()
    validation: dict[str, int] = field(default_factory=dict)
    steps_made: int = 0
    incidents: tuple[str, ...] = ()
    leads: bool = True


@dataclass
class _Best:
    iou: float = -math.inf
    step: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)


class Run:
    """The moving parts of one training.

    history, sums and best hold what a run of any length has at this step. What only the end of a run adds, a validation
    and a row out of turn, is in its result and not here, so that a longer run goes on as if it had never ended.
    """

    def __init__(
        self,
        model: Model,
        data: ResidentData,
        validation: Sequence[ShapeArrays],
        settings: TrainingSettings,
        runtime: RuntimeSettings,
        device: torch.device,
        seed: int,
        state_dir: Path,
        validation_names: Sequence[str],
        may_save: Callable[[], None],
    ) -> None:
        self.settings, self.runtime, self.seed, self.folder = settings, runtime, seed, state_dir
        self.model, self.data, self.may_save = model, data, may_save
        self.fabric = fabric_for(model, settings, runtime, device)
        self.order = ShapeOrder(len(data), settings.batch_shapes, seed, settings.keep_last_batch)
        self.notes = [*left_out_note("training", len(data) + len(data.left_out), data.left_out)]
        self.incidents: list[str] = []
        self.held_out = self._hold_out(validation, validation_names)
        if settings.compile:
            model.network.compile()
        self.wrapped, self.optimiser = self.fabric.setup(model, make_optimiser(model, settings))
        self.wrapped.mark_forward_method("loss")
        self.loss = self.wrapped.loss  # looked up once; Fabric wraps it anew each time
        self.generator = torch.Generator(self.fabric.device)
        self.average = Average(model, settings.ema_decay)
        self.step, self.best = 0, _Best()
        self.history: list[Row] = []
        self.sums: dict[str, float] = {}
        self.waiting: list[tuple[Tensor, dict[str, Tensor]]] = []
        self._restore()
        self.first = self.step

    def _hold_out(self, validation: Sequence[ShapeArrays], names: Sequence[str]) -> HeldOut | None:
        """The shapes that the run is validated with; None where there are none."""
        count = self.settings.validation_shapes if self.model.declaration.validates else 0
        chosen = even_subset(names, count, self.seed)
        shapes = (validation[place] for place in chosen)  # read one by one
        points = self.settings.validation_points
        held_out = HeldOut.of(self.model, shapes, points, self.seed, [names[place] for place in chosen])
        self.notes += left_out_note("validation", len(chosen), held_out.left_out)
        return held_out if len(held_out) else None

    @property
    def leads(self) -> bool:
        """Whether this process writes states and reports for all that share the run."""
        return self.fabric.is_global_zero

    @property
    def last_row(self) -> int:
        """The step of the last row that a run of any length has; 0 before the first."""
        return int(self.history[-1]["step"]) if self.history else 0

    def finish(self, stop: threading.Event, report: Report, write: Write) -> TrainResult:
        """Make the steps that are left and give the result."""
        total, saved = self.settings.steps, time.monotonic()
        self.model.train()
        while self.step < total:
            self._make_step()
            row_due = self.step % self.runtime.log_every == 0 or self._validates_now()
            looks = len(self.waiting) == CHECK_EVERY or row_due or self.step == total
            # Processes that share a run look at the same steps; one alone stops at once.
            if looks or (stop.is_set() and self.fabric.world_size == 1):
                self._check_losses()
                report(self.step, total, self._means())
                stopping = self._anyone(stop.is_set())
            if row_due:
                write(self._add_row())
            if not self.waiting and time.monotonic() - saved >= 60 * self.runtime.checkpoint_minutes:
                self._save()
                saved = time.monotonic()
            if not self.waiting and stopping and self.step < total:
                self._save()
                raise Interrupted(f"stopped after step {self.step} of {total}; the same command continues there")
        self._save()
        return self._ended(write)

    def _make_step(self) -> None:
        self.model.epoch, shapes = self.order.at(self.step)
        self.model.step = self.step
        seed_step(self.generator, self.seed, self.step, self.fabric.global_rank)
        for group in self.optimiser.param_groups:
            factor = learning_rate_factor(self.settings, self.step, self.model.epoch, group)
            group["lr"] = group["initial_lr"] * factor
        batch = self.model.draw(self.data, shapes.to(self.fabric.device), self.generator)
        self.optimiser.zero_grad()
        losses = self._backward(batch)
        rest_inactive_groups(self.model, self.optimiser)
        self._clip_gradients()
        self.optimiser.step()
        self.average.update()
        self.step += 1
        self.waiting.append((shapes, losses))

    def _backward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Gradients of the mean loss over the shapes, part by part; gives the losses."""
        rank, world = self.fabric.global_rank, self.fabric.world_size
        means: dict[str, Tensor] = {}
        for part, share, last in own_parts(batch, rank, world, self.settings.accumulate):
            with nullcontext() if world == 1 or last else self.fabric.no_backward_sync(self.wrapped):
                losses = self.loss(part)
                self.fabric.backward(losses["loss"] * share)
            for name, value in losses.items():
                means[name] = means.get(name, 0.0) + value.detach() * share
        return means

    def _clip_gradients(self) -> None:
        bound = self.settings.gradient_clip
        if bound is None:
            return
        if self.settings.gradient_clip_of == "all":
            self.fabric.clip_gradients(self.wrapped, self.optimiser, max_norm=bound, error_if_nonfinite=False)
            return
        for group in self.optimiser.param_groups:  # none of the precisions scales gradients, so they are what they are
            torch.nn.utils.clip_grad_norm_(group["params"], bound)

    def _anyone(self, flag: bool) -> bool:
        """Whether the flag is up in any of the processes that share the run."""
        if self.fabric.world_size == 1:
            return flag
        ups = self.fabric.all_reduce(torch.tensor(float(flag), device=self.fabric.device), reduce_op="sum")
        return bool(ups > 0)

    def _check_losses(self) -> None:
        """Add the waiting losses to the row that is being made; stop at the first that is not finite."""
        names = list(self.waiting[0][1])
        rows = torch.stack([torch.stack([losses[name].float() for name in names]) for _, losses in self.waiting])
        rows = self.fabric.all_reduce(rows, reduce_op="mean")
        for back, ((shapes, _), values) in enumerate(zip(self.waiting, rows.tolist(), strict=True)):
            if not math.isfinite(values[names.index("loss")]):
                raise NonFiniteLoss(self._explain(self.step - len(self.waiting) + back + 1, shapes))
            for name, value in zip(names, values, strict=True):
                self.sums[name] = self.sums.get(name, 0.0) + value
            self.sums["steps"] = self.sums.get("steps", 0) + 1
        self.waiting.clear()

    def _explain(self, step: int, shapes: Tensor) -> str:
        names = [self.data.names[i] for i in shapes.tolist()]
        faulty = [self.data.names[i] for i in shapes.tolist() if not self._finite_arrays(i)]
        cause = f"not finite are the arrays of: {', '.join(faulty)}" if faulty else "their arrays are all finite"
        return (
            f"the loss or the weights are not finite at step {step}; shapes of the batch: {', '.join(names)}; {cause}"
        )

    def _finite_arrays(self, shape: int) -> bool:
        rows = (tensor[shape] for tensor in self.data.tensors.values() if tensor.is_floating_point())
        return all(bool(row.isfinite().all()) for row in rows)

    def _means(self) -> dict[str, float]:
        return {name: value / self.sums["steps"] for name, value in self.sums.items() if name != "steps"}

    def _validates_now(self) -> bool:
        """Whether a run of any length is validated at this step; the end of one is validated in any case."""
        return self.step % self.settings.validate_every == 0 and self.held_out is not None

    def _add_row(self) -> Row:
        row = self._row()
        if self._validates_now():
            self.best = self._validated(row)
        self.sums.clear()
        self.history.append(row)
        return row

    def _row(self) -> Row:
        """What the history says of the steps since its last row."""
        epoch, _ = self.order.at(self.step - 1)
        rate = self.optimiser.param_groups[0]["lr"]
        return {"step": self.step, "epoch": epoch, "learning_rate": rate, **self._means()}

    def _validated(self, row: Row) -> _Best:
        """Write the IoU of the present weights into a row; gives the best weights with these among them.

        A row stays as it is where no held-out shape has an inside point, and so no IoU.
        """
        with self.average.in_place(), self.fabric.autocast():
            iou = self.held_out.mean_iou(self.model, self.settings.batch_shapes, self.fabric.device)
            if math.isfinite(iou):
                row["validation_iou"] = iou
            better = iou > self.best.iou
            return _Best(iou, self.step, checkpoint.weights_of(self.model)) if better else self.best

    def _ended(self, write: Write) -> TrainResult:
        """The result of a run that ends at this step, by a validation and a row of its own where none is due."""
        history, best = list(self.history), self.best
        known = history.pop() if self.last_row == self.step else {}
        row = dict(known) or self._row()
        if self.held_out is not None and "validation_iou" not in row:
            best = self._validated(row)
        history.append(row)
        news = {name: value for name, value in row.items() if name not in known}
        if news:
            write({"step": self.step, **news})
        with self.average.in_place():
            last = checkpoint.weights_of(self.model)
        return self._result(last, history, best if best.weights else _Best(step=self.step, weights=last))

    def _result(self, last: dict[str, Tensor], history: list[Row], best: _Best) -> TrainResult:
        validation = count_categories(self.held_out.names) if self.held_out is not None else {}
        return TrainResult(
            weights=best.weights,
            last_weights=last,
            history=history,
            steps_done=self.step,
            best_step=best.step,
            notes=tuple(self.notes),
            validation=validation,
            steps_made=self.step - self.first,
            incidents=tuple(self.incidents),
            leads=self.leads,
        )

    def _facts(self) -> dict[str, Any]:
        """What must be the same for a state to belong to this run."""
        digest = checkpoint.digest_of(canonical_json(list(self.data.names)).encode())
        return {"seed": self.seed, "shapes": digest, "training": self.settings.model_dump(mode="json")}

    def _save(self) -> None:
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            raise NonFiniteLoss(self._explain(self.step, self.order.at(self.step - 1)[1]))
        if not self.leads:
            return
        self.may_save()
        weights = {"last": checkpoint.weights_of(self.model)}
        if self.best.weights:
            weights["best"] = self.best.weights
        if self.average.weights:
            weights["average"] = {name: tensor.cpu() for name, tensor in self.average.weights.items()}
        best = {"iou": self.best.iou, "step": self.best.step} if self.best.weights else None
        facts = {**self._facts(), "history": self.history, "sums": self.sums, "best": best}
        checkpoint.save_state(self.folder, State(self.step, facts, weights, self.optimiser.state_dict()))

    def _restore(self) -> None:
        """Continue from the newest state, if there is one and it leads to these settings."""
        state = checkpoint.load_state(self.folder)
        if state is None:
            return
        if reason := _starts_over(state, self._facts(), self.settings):
            self.incidents.append(reason)
            checkpoint.LOG.warning("%s", reason)
            checkpoint.clear_states(self.folder)
            return
        checkpoint.assign_weights(self.model, state.weights["last"])
        self.optimiser.load_state_dict(state.optimiser)
        self.average.restore(state.weights.get("average", {}))
        self.step, self.history, self.sums = state.step, state.facts["history"], state.facts["sums"]
        if state.facts["best"]:
            self.best = _Best(**state.facts["best"], weights=state.weights["best"])


def make_optimiser(model: Model, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Each of its groups remembers its peak rate as `initial_lr`."""
    kind = torch.optim.AdamW if settings.optimiser == "adamw" else torch.optim.Adam
    groups = [{**group, "initial_lr": group["lr"]} for group in model.parameter_groups(settings.learning_rate)]
    optimiser = kind(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    if settings.adam_epsilon == "uncorrected":
        leave_epsilon_uncorrected(optimiser)
    return optimiser


def rest_inactive_groups(model: Model, optimiser: torch.optim.Optimizer) -> None:
    """A parameter without gradient stays as it is, and so does the optimiser's memory of it."""
    active = model.active_groups()
    for number, group in enumerate(optimiser.param_groups):
        if active is not None and number not in active:
            for parameter in group["params"]:
                parameter.grad = None


def _starts_over(state: State, facts: dict[str, Any], settings: TrainingSettings) -> str | None:
    """Why a run of the same kind cannot be continued, or None. Raises CheckpointMismatch for a run of another kind."""
    before, now = ({**f["training"], "seed": f["seed"], "shapes": f["shapes"]} for f in (state.facts, facts))
    steps = before.pop("steps", None), now.pop("steps")
    differing = [f"{key}: {before.get(key)!r}, now {now.get(key)!r}" for key in now if before.get(key) != now[key]]
    if differing:
        raise CheckpointMismatch(f"the saved state belongs to another run; {'; '.join(differing)}")
    if settings.schedule == "cosine" and steps[0] != steps[1]:
        return f"steps changed from {steps[0]} to {steps[1]} and the cosine schedule depends on them: starting over"
    if state.step > settings.steps:
        return f"the saved state is at step {state.step}, beyond the {settings.steps} asked for: starting over"
    return None
