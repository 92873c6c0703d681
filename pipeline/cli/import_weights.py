"""`isomill import-weights <preset> <checkpoint>`: an original checkpoint as safetensors with its settings."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", help="whose network it is: a name of resources/presets, such as onet-pointcloud")
    parser.add_argument("checkpoint", type=Path, help="the original's file (.pt, .pth, .tar) or safetensors")
    parser.add_argument("--output", type=Path, help="file to write (default: <preset>.safetensors)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a model setting over the preset's"
    )


def run(arguments: argparse.Namespace) -> int:
    import yaml

    from pipeline import files
    from pipeline.models.foreign import UnreadableCheckpoint, read_checkpoint
    from pipeline.models.weights import checkpoint_of, load_published
    from pipeline.training.checkpoint import CheckpointMismatch

    pairs = [text.partition("=") for text in arguments.set]
    settings = {name: yaml.safe_load(value) for name, _, value in pairs}
    try:
        tensors = read_checkpoint(arguments.checkpoint)
        model = load_published(arguments.preset, tensors, **settings)
    except (UnreadableCheckpoint, CheckpointMismatch, ValueError) as problem:
        raise SystemExit(f"error: {problem}") from None
    output = arguments.output or Path(f"{arguments.preset}.safetensors")
    description = {"method": type(model).__module__.rsplit(".", 1)[1], "model": model.settings.model_dump(mode="json")}
    files.write_atomic(output, checkpoint_of(model, description))
    count = sum(parameter.numel() for parameter in model.network.parameters())
    print(f"{output}: {count:,} parameters of {arguments.preset}. To use them, in an experiment's block:")
    print(f"  - {_block(arguments.preset, output, {key: description['model'][key] for key in settings})}")
    return 0


def _block(preset: str, output: Path, settings: Mapping[str, Any]) -> str:
    """An experiment that takes the weights, as one line of YAML. settings: of the model, other than the preset's."""
    import yaml

    model = {"model": dict(settings)} if settings else {}
    block = {"name": preset, "preset": preset, **model, "weights": {"path": str(output)}}
    return yaml.safe_dump(block, default_flow_style=True, sort_keys=False, width=float("inf")).strip()
