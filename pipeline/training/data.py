"""Training arrays held as tensors on the device, and batches gathered from them by random indices.

No loader, no workers: what is drawn depends on a generator alone. Arrays that do not fit on the device stay in
(pinned) host memory, and only the gathered rows travel; those that do not fit there lie in memory-mapped files.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.arrays import Rejected
from pipeline.models.contract import Model, ShapeArrays

LOG = logging.getLogger("isomill")


@dataclass(frozen=True)
class Spill:
    """Arrays of more than `limit` bytes in all are kept in files of a folder, and only what is drawn is read."""

    limit: int
    folder: Path


class ResidentData:
    """Arrays of S shapes, each key stacked to one tensor (S, ...). `names` say which shape is which.

    left_out: names of the shapes that could not be taken, which are not among the S, with the reason.
    """

    def __init__(self, tensors: dict[str, Tensor], names: Sequence[str], left_out: Mapping[str, str] = {}) -> None:
        self.tensors, self.names, self.left_out = tensors, tuple(names), dict(left_out)

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def from_shapes(
        cls,
        shapes: Sequence[ShapeArrays | Rejected],
        keys: Sequence[str] | None = None,
        device: torch.device | str = "cpu",
        *,
        names: Sequence[str] | None = None,
        limit: int | None = None,
        spill: Spill | None = None,
    ) -> ResidentData:
        """Stack the named arrays (all where keys is None) of the shapes, which are read once and in order.

        A Rejected in place of a shape's arrays leaves the shape out, with a warning.
        names: of the shapes, for messages. limit: bytes the device may take; beyond it the arrays stay on the host.
        spill: where they go when the host may not hold them either.
        Raises ValueError where a shape's array is missing or has another size or type than the first shape's.
        """
        names = tuple(names) if names is not None else tuple(f"shape {i}" for i in range(len(shapes)))
        stacked, kept, left_out = _stack(shapes, keys, names, spill)
        tensors = {key: torch.from_numpy(array) for key, array in stacked.items()}
        if any(isinstance(array, np.memmap) for array in stacked.values()):
            return cls(tensors, kept, left_out)
        return cls(_place(tensors, torch.device(device), limit), kept, left_out)

    @classmethod
    def for_model(
        cls,
        model: Model,
        shapes: Sequence[ShapeArrays],
        device: torch.device | str = "cpu",
        *,
        names: Sequence[str] | None = None,
        limit: int | None = None,
        spill: Spill | None = None,
    ) -> ResidentData:
        """What the model's training keeps of each shape (`Model.prepare`); those it cannot train on are left out."""
        return cls.from_shapes(_Prepared(model, shapes), None, device, names=names, limit=limit, spill=spill)


class _Prepared(Sequence):
    """The shapes as a model prepares them, made one at a time so that they are never all in memory twice.

    In place of a shape that cannot be trained on stands the Rejected that says why.
    """

    def __init__(self, model: Model, shapes: Sequence[ShapeArrays]) -> None:
        self._model, self._shapes = model, shapes

    def __getitem__(self, index: int) -> dict[str, np.ndarray] | Rejected:
        return self._prepared(self._shapes[index])

    def __len__(self) -> int:
        return len(self._shapes)

    def __iter__(self) -> Iterator[dict[str, np.ndarray] | Rejected]:
        return map(self._prepared, self._shapes)

    def _prepared(self, arrays: ShapeArrays) -> dict[str, np.ndarray] | Rejected:
        try:
            return self._model.prepare(arrays)
        except Rejected as reason:
            return reason


def _stack(
    shapes: Sequence[ShapeArrays | Rejected], keys: Sequence[str] | None, names: Sequence[str], spill: Spill | None
) -> tuple[dict[str, np.ndarray], list[str], dict[str, str]]:
    """The stacked arrays, the names of their shapes, and name → reason of those that are left out."""
    stacked: dict[str, np.ndarray] = {}
    kept: list[str] = []
    left_out: dict[str, str] = {}
    for name, arrays in zip(names, shapes, strict=True):
        if isinstance(arrays, Rejected):
            LOG.warning("%s is left out of the training: %s", name, arrays)
            left_out[name] = str(arrays)
            continue
        if not kept:
            first = {key: np.asarray(arrays[key]) for key in (arrays if keys is None else keys)}
            stacked = _allocated(first, len(shapes), spill)
        for key, target in stacked.items():
            if key not in arrays:
                raise ValueError(f"{name} lacks the array {key!r}, which {kept[0]} has")
            array = np.asarray(arrays[key])
            if (array.shape, array.dtype) != (target.shape[1:], target.dtype):
                raise ValueError(
                    f"{name}: array {key!r} is {array.shape} {array.dtype}, but {kept[0]}'s is "
                    f"{target.shape[1:]} {target.dtype}; all shapes of a run need the same sample counts"
                )
            target[len(kept)] = array
        kept.append(name)
    return {key: target[: len(kept)] for key, target in stacked.items()}, kept, left_out


def left_out_note(kind: str, shapes: int, left_out: Mapping[str, str]) -> tuple[str, ...]:
    """What a reader should know of the shapes that a run leaves out of so many; nothing where there are none.

    kind: of the shapes, such as "training". left_out: name → reason.
    """
    if not left_out:
        return ()
    name, reason = next(iter(left_out.items()))
    return (f"{len(left_out)} of {shapes} {kind} shapes left out, the first {name}: {reason}",)


def _allocated(first: dict[str, np.ndarray], shapes: int, spill: Spill | None) -> dict[str, np.ndarray]:
    """Room for so many shapes like the first: in memory, or in files where it would take too much."""
    size = shapes * sum(array.nbytes for array in first.values())
    if spill is None or size <= spill.limit:
        return {key: np.empty((shapes, *array.shape), array.dtype) for key, array in first.items()}
    spill.folder.mkdir(parents=True, exist_ok=True)
    return {
        key: np.lib.format.open_memmap(spill.folder / f"{key}.npy", "w+", array.dtype, (shapes, *array.shape))
        for key, array in first.items()
    }


def _place(tensors: dict[str, Tensor], device: torch.device, limit: int | None) -> dict[str, Tensor]:
    if device.type == "cpu":
        return tensors
    size = sum(tensor.nbytes for tensor in tensors.values())
    if limit is not None and size > limit:
        return {key: tensor.pin_memory() for key, tensor in tensors.items()}
    return {key: tensor.to(device) for key, tensor in tensors.items()}


def gather_points(tensor: Tensor, shapes: Tensor, index: Tensor) -> Tensor:
    """Rows `index` (B, k) of the shapes (B,) of a tensor (S, n, ...), as (B, k, ...) on the index's device."""
    rows = (shapes[:, None] * tensor.shape[1] + index).flatten().to(tensor.device)
    return tensor.flatten(0, 1).index_select(0, rows).unflatten(0, index.shape).to(index.device)


def random_index(generator: torch.Generator, shapes: int, count: int, n: int | Tensor) -> Tensor:
    """Indices (shapes, count), uniform and with replacement below n, or below n (shapes,) of each shape.

    They lie on the generator's device. A shape with n = 0 gets index 0.
    """
    size = (shapes, count)
    if isinstance(n, int):
        return torch.randint(n, size, generator=generator, device=generator.device)
    draws = torch.rand(size, generator=generator, device=generator.device, dtype=torch.float64)
    # Rounding may give n itself, once in 2^53 draws.
    return torch.minimum((draws * n[:, None]).long(), (n[:, None] - 1).clamp(min=0))
