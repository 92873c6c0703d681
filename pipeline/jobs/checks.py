"""What is wrong with a study before any of its jobs has run: found when the workflow is parsed, in dry runs too.

Each fault would otherwise end a run hours later, or let it run to an end that means nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.jobs.gpu import visible_gpus
from pipeline.overlays import ConfigError
from pipeline.plan import Plan
from pipeline.runs import Command
from pipeline.sources.catalogue import count_splits
from pipeline.sources.errors import SourceError
from pipeline.sources.listing import CATALOGUE, list_source
from pipeline.unused import unused_keys

# Targets that need no shape to train on.
WITHOUT_TRAINING = {"prepare_all", "list_shapes"}
# Where the drivers of graphics cards show themselves: NVIDIA's, that of Windows' own Linux, AMD's.
DRIVERS = ("nvidiactl", "nvidia0", "dxg", "kfd")


def before_any_job(plan: Plan, command: Command) -> list[str]:
    """Refuse a study that cannot come to an end that means something; give the lines to print of one that can.

    Raises ConfigError or SourceError with what to change. Writes, in a real run, which source the results are of.
    """
    _check_files(plan)
    _check_folders(plan)
    _check_cards(plan, command)
    _check_identity(plan)
    notes = [*unused_keys(plan), *_shape_notes(plan, command)]
    if command.real:
        files.write_json(_identity_file(plan), identity(plan))
    return notes


# --- what has to be there


def _check_files(plan: Plan) -> None:
    """The user's own files and folders exist."""
    path = getattr(plan.study.source, "path", None)
    if path is not None and not Path(path).expanduser().exists():
        raise SourceError(
            f"source.path: there is no {path}{_seen_from(path)}. Is its disk mounted? Write the path of your shapes"
        )
    for name in plan.fetched:
        for weights in plan.weights_file(name):
            if not Path(weights).is_file():
                raise ConfigError(f"experiment {name}: there is no file of weights {weights}{_seen_from(weights)}")


def _check_folders(plan: Plan) -> None:
    """A folder of meshes must not hold what this workflow writes, or that would be listed as shapes."""
    if plan.study.source.kind != "directory":
        return
    source = Path(plan.study.source.path).expanduser().resolve()
    for own in (Path(plan.study.store.path).expanduser(), Path("results"), Path(plan.study.download.folder)):
        if own.resolve().is_relative_to(source):
            raise ConfigError(
                f"source.path: {source} contains {own}, which this workflow writes. Put the meshes into a folder of "
                f"their own, or run from another folder."
            )


def _seen_from(path: str) -> str:
    """Relative paths are taken from the working directory, which a message had better name."""
    return "" if Path(path).expanduser().is_absolute() else f" in {Path.cwd()}"


def _check_cards(plan: Plan, command: Command) -> None:
    """Graphics cards that blocks insist on are in this machine, where the jobs run on it."""
    if not command.local:
        return  # a login node needs none
    asking = [
        name
        for name in plan.experiments
        if plan.experiments[name].runtime.device == "cuda" and plan.gpus(name, training=True)
    ]
    if asking and not cards():
        hidden = " (CUDA_VISIBLE_DEVICES hides them)" if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") else ""
        raise ConfigError(
            f"runtime.device: cuda is asked for by {', '.join(asking)}, and this machine shows no graphics card"
            f"{hidden}. Write auto or cpu, or run where there is one"
        )


def cards() -> int:
    """Graphics cards of this machine; 1 where only a driver shows that there are some."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return visible_gpus()
    return visible_gpus() or int(any(Path("/dev", name).exists() for name in DRIVERS))


# --- the same name over another source


def _identity_file(plan: Plan) -> Path:
    return Path(plan.results) / "source.json"


def _check_identity(plan: Plan) -> None:
    """The results of this name are of the source that the configuration names.

    A study may be edited freely; over other shapes it is another one, and would mix with the first. Before shapes
    were listed there is nothing to mix with, and a wrong path may be put right.
    """
    path, now = _identity_file(plan), identity(plan)
    if not path.is_file() or not any(Path(plan.results).glob(f"shapes/*/{CATALOGUE}")):
        return
    try:
        before = files.read_json(path)
        same = (before["kind"], before["path"]) == (now["kind"], now["path"])
        same = same or (before["kind"] == now["kind"] and before["resolved"] == now["resolved"] is not None)
        was = _described(before)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"{path} is damaged. It notes which source the results are of; type:  rm {path}") from None
    if not same:
        raise ConfigError(
            f"dataset: the results of {plan.study.dataset!r} are of {was}, and this configuration names "
            f"{_described(now)}. Give this study a name of its own (dataset: …); or, if these shapes are to take "
            f"the place of the others, type:  rm {path}  and the same command again"
        )


def identity(plan: Plan) -> dict[str, Any]:
    """What makes a source this one: its kind and its place. Everything else of it may change."""
    source = plan.study.source
    path = getattr(source, "path", None)
    resolved = None if path is None else os.path.realpath(Path(path).expanduser())
    return {"kind": source.kind, "path": path, "resolved": resolved}


def _described(identity: dict[str, Any]) -> str:
    """A source in a few words."""
    kind, path = identity["kind"], identity["path"]
    if kind == "demo":
        return "the embedded demo"
    return f"{kind} {path}" if path else f"{kind} from its archives"


# --- how many shapes there are


def _shape_notes(plan: Plan, command: Command) -> list[str]:
    """Refuse a study with too few shapes to train on; say where none is left to test with."""
    counts = _known_splits(plan)
    if counts is None:
        return []
    fault, note = _too_few(plan, counts, command), _nothing_to_test(plan, counts)
    if fault:
        raise SourceError(fault)
    return [note] if note else []


def _known_splits(plan: Plan) -> Counter | None:
    """Usable shapes of each split; None where only a job will find out."""
    catalogue = Path(plan.catalogue)
    counts = None
    if catalogue.is_file():
        with suppress(ValueError):  # a damaged one is made again
            counts = count_splits(catalogue.read_text(encoding="utf-8"))
    # A folder is cheap to look at, and shapes may have been added since it was listed, on this very advice.
    if plan.study.source.kind == "directory" and not (counts and counts["train"] and counts["test"]):
        entries, _ = list_source(plan.source, Path())
        counts = Counter(entry.split for entry in entries if not entry.reason)
    return counts


def _too_few(plan: Plan, counts: Counter, command: Command) -> str | None:
    """What is wrong where something is asked for that is trained, and there are too few shapes for it."""
    if command.targets and set(command.targets) <= WITHOUT_TRAINING:
        return None
    for name in plan.trained:
        devices = plan.blocks[name].runtime.devices
        if plan.declaration(name).trains == "gradient" and counts["train"] < devices:
            divided = ", ".join(f"{counts[split]} {split}" for split in ("train", "val", "test"))
            return (
                f"experiment {name} needs at least {devices} training shape{'s' * (devices > 1)}, and the split of the "
                f"source's {sum(counts.values())} usable shapes is {divided}. Add shapes, change source.split, or "
                f"leave out experiments that train (methods such as poisson need no training)"
            )
    return None


def _nothing_to_test(plan: Plan, counts: Counter) -> str | None:
    if counts["test"] or plan.study.allow_empty:
        return None
    return (
        f"There are no test shapes among the {sum(counts.values())} usable ones of the source: nothing will be "
        f"compared, and a run with a report will end as failed. Add shapes, change source.split, or write "
        f"allow_empty: true."
    )
