"""Published weights: the original's tensors put into our networks, tensor by tensor, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.models import registry
from pipeline.models.contract import Model, build_model
from pipeline.models.foreign import unwrapped
from pipeline.overlays import read_yaml
from pipeline.settings import Settings
from pipeline.training.checkpoint import assign_weights, listed

PRESETS = Path(__file__).parent.parent.parent / "resources" / "presets"
COUNTERS = "num_batches_tracked"  # of normalisation layers; they decide nothing, and older checkpoints lack them


def load_published(preset: str, state_dict: Mapping[str, Tensor | np.ndarray], **model_settings: Any) -> Model:
    """The model of a preset with the original's weights, in evaluation mode.

    preset: a name of resources/presets. state_dict: tensors or arrays of numpy under the original's names, which may
    carry the "module." of data-parallel training and the "_orig_mod." of torch.compile. model_settings: lie over those
    of the preset, such as align_corners=True for IF-Net. `model.network(queries, observation)` then answers as the
    original's network did. Raises ValueError for a preset that does not exist or has no weights of its own and, naming
    them, for tensors that hold NaN or infinity, and CheckpointMismatch, naming them, for tensors that are missing,
    unexpected or of another shape.
    """
    block = _block(preset)
    head = registry.head(block["method"])
    if head.DECLARATION.parent:
        raise ValueError(f"{preset} builds on a trained {head.DECLARATION.parent}; load that one's weights")
    settings = registry.load(block["method"]).ModelSettings(**{**block.get("model", {}), **model_settings})
    return from_published(block["method"], settings, state_dict)


def from_published(method: str, settings: Settings, state_dict: Mapping[str, Tensor | np.ndarray]) -> Model:
    """The model of these ModelSettings with the original's weights, in evaluation mode; errors as `load_published`."""
    module = registry.load(method)
    if module.DECLARATION.parent:
        raise ValueError(
            f"{method} builds on a trained {module.DECLARATION.parent}, so weights of its own are not enough"
        )
    if module.DECLARATION.trains != "gradient" and not module.DECLARATION.batched:
        raise ValueError(f"{method} has no weights")
    model = build_model(method, settings, module.InferenceSettings(), train_shapes=0, seed=0)
    tensors = unwrapped(state_dict)
    _require_finite(tensors)
    if hasattr(module, "from_published"):
        tensors = module.from_published(tensors, settings)
    own = model.network.state_dict()
    counters = {name: own[name] for name in own.keys() - tensors.keys() if name.endswith(COUNTERS)}
    assign_weights(model.network, {**tensors, **counters})
    return model.eval()


def _require_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError that names the tensors in which a number is NaN or infinite."""
    broken = []
    for name, tensor in tensors.items():
        count = int((~torch.isfinite(tensor)).sum())
        if count:
            broken.append(f"{name} ({count:,} of {tensor.numel():,})")
    if broken:
        raise ValueError(
            f"the weights are not finite; NaN or infinite numbers in {listed(sorted(broken))}. The training that wrote "
            "them has diverged, or the file is damaged: take an earlier checkpoint, or the file again"
        )


def _block(preset: str) -> dict[str, Any]:
    names = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    if preset not in names:
        raise ValueError(f"there is no preset {preset!r}; there are {', '.join(names)}")
    rows = read_yaml(PRESETS / f"{preset}.yaml").get("experiments", [])
    own = [row for row in rows if row["name"] == preset and "method" in row]
    if not own:
        raise ValueError(f"{preset} is a whole study, not one model")
    return own[0]


def checkpoint_of(model: Model, description: Mapping[str, Any]) -> bytes:
    """The bytes of a checkpoint as a training writes it, of a model that was trained elsewhere.

    description: "method", "model" and perhaps "parent" of the experiment's block.
    """
    from pipeline.training.checkpoint import encode_weights, weights_of

    facts = {"train_shapes": 0, "steps": 0, "best_step": 0}
    return encode_weights({f"last/{n}": t for n, t in weights_of(model).items()}, {**description, **facts})
