"""Keys that decide nothing: a study whose author believes in one of them would run to its end and answer wrongly.

A key that another key of the same block rules out is refused. One that merely nobody reads is named when the study
starts, since a file of stages may well be shared by studies of several methods. What stands at its default is never
spoken of: nobody may have written it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.settings import Settings

if TYPE_CHECKING:
    from pipeline.plan import Plan

# What each method of extraction reads of the keys that describe its lattice.
LATTICE = {
    "mise": ("resolution_0", "depth", "mode"),
    "dense": ("resolution",),
    "coarse_to_fine": ("resolution_0", "depth"),
}
OF_ANY_LATTICE = ("resolution_0", "depth", "mode", "resolution")
# What each schedule of the learning rate reads of the keys that describe one.
SCHEDULES = {
    "constant": (),
    "cosine": (),
    "step": ("decay_every", "decay_factor", "schedule_unit"),
    "milestones": ("milestones", "decay_factor", "schedule_unit"),
}
OF_ANY_SCHEDULE = ("decay_every", "decay_factor", "milestones", "schedule_unit")
# What extraction decides where a model gives its meshes itself, without a field.
WITHOUT_FIELD = ("checkpoint", "batch_shapes", "batch_points")
# Keys of make_watertight that one link of its chain alone reads.
OF_A_LINK = {"thick_offset": "thick_shell", "alpha": "alpha_wrap", "wrap_offset": "alpha_wrap", "fusion": "fusion"}


def refused_keys(written: Mapping[str, Any], extraction: Settings, path: str) -> list[str]:
    """What is wrong with the keys of extraction that an experiment's own block writes, a line each.

    written: `extraction` of the block as its author wrote it, without what its preset says. extraction: with it.
    """
    read = LATTICE[extraction.method]
    lines = [
        f"{path}.{key}: decides nothing under method: {extraction.method}, which reads {', '.join(read)}; write that, "
        f"or {_methods_reading(key)}"
        for key in OF_ANY_LATTICE
        if key in written and key not in read
    ]
    if written.get("refinement_steps") is not None and extraction.refinement == "none":
        lines.append(f"{path}.refinement_steps: decides nothing under refinement: none; name a refinement")
    return lines


def _methods_reading(key: str) -> str:
    return " or ".join(f"method: {method}" for method, keys in LATTICE.items() if key in keys)


def unused_keys(plan: Plan) -> list[str]:
    """A line for every key of the configuration that was changed and that nothing of the study reads."""
    notes = [*_outside_stages(plan), *_of_stages(plan)]
    for block in plan.study.blocks:
        notes += _of_block(plan, block)
    return notes


def _of_stages(plan: Plan) -> Iterator[str]:
    used = {instance.split("/")[0] for instance in plan.instances}
    used |= {instance.split("/")[0] for name in plan.quick for instance in plan.quick_instances(name)}
    for stage, settings in plan.study.stages:
        for key, value in _changed(settings):
            if stage not in used:
                why = f"no method of this study asks for {stage}"
            elif (stage, key) == ("sample_boundary", "sigmas"):
                why = _why_no_sigma(plan)
            else:
                why = _why_in_stage(stage, key, settings)
            if why:
                yield _unread(f"stages.{stage}.{key}", value, why)


def _why_no_sigma(plan: Plan) -> str:
    """Why the sigmas of the study choose no points; empty where they do."""
    own = []
    for name in plan.experiments:
        declaration = plan.declaration(name)
        stages = (*declaration.training_stages, *declaration.observation_stages)
        if {"sample_boundary", "compute_sdf"} & set(stages):
            return ""
        if any(stage.startswith("sample_boundary/") for stage in stages):
            own.append(name)
    return f"{', '.join(own)} samples by its own model.sigmas; change those in its block"


def _why_in_stage(stage: str, key: str, settings: Settings) -> str:
    """Why a key decides nothing beside the others of its stage; empty where it does."""
    first = key.split(".")[0]
    if stage == "make_watertight" and OF_A_LINK.get(first, settings.chain[0]) not in settings.chain:
        return f"{OF_A_LINK[first]} is not in stages.make_watertight.chain"
    if stage == "compute_sdf" and first == "votes" and settings.method == "exact":
        return "stages.compute_sdf.method is exact"
    return ""


def _outside_stages(plan: Plan) -> Iterator[str]:
    study, source = plan.study, plan.study.source
    if source.split.kind == "files":
        for key, value in _changed(source.split):
            if key in ("train", "val", "test"):
                why = "source.split.kind is files, so the lists divide the shapes"
                yield _unread(f"source.split.{key}", value, why)
    if source.kind != "demo":
        for key, value in _changed(study.demo):
            if key != "experiments":  # the default file shows its own
                yield _unread(f"demo.{key}", value, f"source.kind is {source.kind}")


def _of_block(plan: Plan, block: Mapping[str, Any]) -> Iterator[str]:
    """Parts of an experiment's own block that its method has no use for."""
    name = block["name"]
    experiment, declaration = plan.experiments[name], plan.declaration(name)
    written = {part: block.get(part) or {} for part in ("training", "sampling", "extraction")}
    if written["training"] and declaration.trains != "gradient":
        yield f"experiment {name}: its training decides nothing, since {experiment.method} is not trained by steps"
    if written["sampling"] and not declaration.generates:
        yield f"experiment {name}: its sampling decides nothing, since {experiment.method} draws no shapes of its own"
    if declaration.quantity == "surface":
        for key in written["extraction"]:
            if key not in WITHOUT_FIELD:
                why = f"{experiment.method} gives its meshes itself, not by a field"
                yield f"experiment {name}: extraction.{key} decides nothing: {why}"
    changed = dict(_changed(experiment.training))
    for key in OF_ANY_SCHEDULE:
        if key in written["training"] and key in changed and key not in SCHEDULES[experiment.training.schedule]:
            why = f"training.schedule is {experiment.training.schedule}"
            yield f"experiment {name}: training.{key} = {changed[key]} decides nothing: {why}"


def _unread(key: str, value: Any, why: str) -> str:
    return f"{key} = {value} decides nothing: {why}."


def _changed(settings: Settings, path: str = "") -> Iterator[tuple[str, Any]]:
    """(key path, value) of everything that stands otherwise than by default."""
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield from _changed(value, f"{path}{name}.")
        elif value != field.get_default(call_default_factory=True):
            yield f"{path}{name}", list(value) if isinstance(value, tuple) else value
