"""Published weights in place of a training: fetched or brought by the user, verified, and converted."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.fingerprint import key_of
from pipeline.jobs.context import Context, open_context
from pipeline.jobs.download_source import Bar
from pipeline.jobs.history import History
from pipeline.jobs.train_model import write_checkpoint
from pipeline.progress import LOG
from pipeline.sources.download import DownloadSettings, fetch, local_path
from pipeline.sources.errors import DownloadError

STAGE = "fetch_weights"
NOTE = "published weights; nothing was trained here"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", type=Path, required=True, help="settings file of the weights")
    parser.add_argument("--experiment", required=True, help="name of the experiment")
    parser.add_argument("--output", type=Path, required=True, help="checkpoint.json to write; weights go beside it")
    parser.add_argument("--log", type=Path, help="log file")


def run(arguments: argparse.Namespace) -> None:
    context = open_context(arguments.settings)
    path, digest = _file(context, arguments.experiment)
    content = _converted(context.work.settings, path)
    entry = context.store.put(STAGE, key_of("weights", context.work.fingerprint, digest), content, "safetensors")
    write_checkpoint(arguments.output, entry, content, arguments.experiment, History(notes=(NOTE,)))


def _file(context: Context, experiment: str) -> tuple[Path, str]:
    """The checkpoint on this machine and its SHA-256. Raises SystemExit where it is not what was asked for."""
    wanted = context.work.settings["weights"]
    address = wanted["path"] or wanted["url"]
    here = Path(wanted["path"]).expanduser() if wanted["path"] else local_path(wanted["url"])
    if here is None:
        settings = DownloadSettings(**context.runtime["download"])
        name = Path(urlsplit(address).path).name or "checkpoint"
        place = Path(settings.folder) / "weights" / key_of("url", address)[:12] / name
        try:
            fetched = fetch(
                address, place, wanted["sha256"], None, settings, LOG.warning, Bar(f"fetch_weights {experiment}").show
            )
        except DownloadError as problem:
            raise SystemExit(str(problem)) from None
        here = fetched.path
    if not here.is_file():
        raise SystemExit(f"experiment {experiment}: weights: there is no file {here}")
    digest = hashlib.sha256(here.read_bytes()).hexdigest()
    if wanted["sha256"] is None:
        LOG.warning("%s: its SHA-256 is %s; name it in the block to be sure of the same file", here.name, digest)
    elif digest != wanted["sha256"]:
        raise SystemExit(f"{here}: its SHA-256 is {digest}, not {wanted['sha256']}; it is another file or damaged")
    return here, digest


def _converted(settings: dict[str, Any], path: Path) -> bytes:
    """The checkpoint as a training would have written it. Raises SystemExit where it does not fit the model."""
    from pipeline.models import registry
    from pipeline.models.foreign import UnreadableCheckpoint, read_checkpoint
    from pipeline.models.weights import checkpoint_of, from_published
    from pipeline.training.checkpoint import CheckpointMismatch, decode_weights

    description = {name: settings[name] for name in ("method", "model")}
    try:
        ours = decode_weights(path.read_bytes())[1]
    except ValueError:
        ours = None
    if ours is not None:
        return _own_content(path, ours, description)
    try:
        model_settings = registry.load(settings["method"]).ModelSettings(**settings["model"])
        model = from_published(settings["method"], model_settings, read_checkpoint(path))
    except (UnreadableCheckpoint, CheckpointMismatch, ValueError) as problem:
        raise SystemExit(f"the weights of {path.name} cannot be used: {problem}") from None
    return checkpoint_of(model, description)


def _own_content(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> bytes:
    """A checkpoint that this project wrote, of the very same model."""
    if found["method"] != wanted["method"]:
        raise SystemExit(f"{path.name} is a checkpoint of {found['method']}, the experiment is of {wanted['method']}")
    differing = [
        f"{name}: {found['model'].get(name)!r} there, {value!r} here"
        for name, value in wanted["model"].items()
        if found["model"].get(name) != value
    ]
    if differing:
        raise SystemExit(f"{path.name} was made with other model settings; {'; '.join(differing)}")
    return path.read_bytes()
