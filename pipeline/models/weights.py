"""Published weights: the original's tensors put into our networks, tensor by tensor, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.models import registry
from pipeline.models.contract import Model, build_model
from pipeline.models.foreign import unwrapped
from pipeline.overlays import read_yaml
from pipeline.settings import Settings
from pipeline.training.checkpoint import assign_weights

PRESETS = Path(__file__).parent.parent.parent / "resources" / "presets"
COUNTERS = "num_batches_tracked"  # of normalisation layers; they decide nothing, and older checkpoints lack them


def load_published(preset: str, state_dict: Mapping[str, Tensor], **model_settings: Any) -> Model:
    """The model of a preset with the original's weights, in evaluation mode.

    preset: a name of resources/presets. state_dict: tensors under the original's names. model_settings: lie over those
    of the preset, such as align_corners=True for IF-Net. `model.network(queries, observation)` then answers as the
    original's network did. Raises ValueError for a preset that does not exist or has no weights of its own, and
    CheckpointMismatch, naming them, for tensors that are missing, unexpected or of another shape.
    """
    block = _block(preset)
    head = registry.head(block["method"])
    if head.DECLARATION.parent:
        raise ValueError(f"{preset} builds on a trained {head.DECLARATION.parent}; load that one's weights")
    settings = registry.load(block["method"]).ModelSettings(**{**block.get("model", {}), **model_settings})
    return from_published(block["method"], settings, state_dict)


def from_published(method: str, settings: Settings, state_dict: Mapping[str, Tensor]) -> Model:
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
    if hasattr(module, "from_published"):
        tensors = module.from_published(tensors, settings)
    own = model.network.state_dict()
    counters = {name: own[name] for name in own.keys() - tensors.keys() if name.endswith(COUNTERS)}
    assign_weights(model.network, {**tensors, **counters})
    return model.eval()


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
