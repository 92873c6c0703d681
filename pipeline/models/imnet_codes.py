"""What IM-GAN and IM-SVR share: they work on the codes of a trained IM-AE, which does not change any more."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.models.contract import Model, ShapeArrays, frozen
from pipeline.models.imnet import ImNet


class OnCodes(Model):
    """A model whose codes are those of its parent, and whose field is the parent's."""

    def __init__(self, parent: ImNet) -> None:
        super().__init__()
        self.parent = frozen(parent)

    @torch.no_grad()
    def code_of(self, arrays: ShapeArrays) -> np.ndarray:
        """The parent's code (code,) float32 of a shape. Raises Rejected where its voxel grid is empty."""
        seen = self.parent.observe(arrays, np.random.default_rng(0))  # which draws nothing
        voxels = torch.from_numpy(seen["voxels"])[None].to(self.parent.device)
        return self.parent.encode({"voxels": voxels}, [0])["code"][0].float().cpu().numpy()

    def field(self, code: dict[str, Tensor], queries: Tensor) -> Tensor:
        """The parent's field: inside above 0.5; 0 outside the cube."""
        return self.parent.field(code, queries)
