"""Shape arrays of analytic shapes, as the data stages would give them, and tiny settings of every model."""

from __future__ import annotations

import numpy as np

from pipeline.arrays import Mesh
from pipeline.models import registry
from pipeline.models.contract import Model, build_model
from tests.solids import box, box_sdf, join, sphere_sdf

# Disjoint boxes (extents, centre): no symmetry, no two edges of a box alike, off centre, inside [-0.5, 0.5]^3.
BLOCKS = (
    ((0.60, 0.36, 0.30), (-0.15, 0.30, 0.20)),
    ((0.30, 0.50, 0.40), (0.30, -0.20, -0.20)),
    ((0.36, 0.30, 0.50), (-0.25, -0.25, 0.15)),
)
# The same with its axes in another order and one of them mirrored: a mix-up cannot serve both.
TURNED = tuple(((y, z, x), (-cy, cz, cx)) for (x, y, z), (cx, cy, cz) in BLOCKS)

TINY = {
    "onet": {
        "hidden": 32,
        "blocks": 2,
        "code": 16,
        "encoder_hidden": 16,
        "encoder_blocks": 2,
        "queries": 256,
        "observation": {"points": 100},
    },
    "deepsdf": {"dims": (32,) * 4, "latent_in": (2,), "code": 8, "samples": 256, "dropout": 0.0},
    "poisson": {"depth": 4},
}
TINY_INFERENCE = {"deepsdf": {"iterations": 20, "samples": 256}}


def blocks_sdf(points: np.ndarray, boxes=BLOCKS) -> np.ndarray:
    """Exact signed distance, (n,), negative inside."""
    return np.min([box_sdf(points, extents, centre) for extents, centre in boxes], axis=0)


def blocks_mesh(boxes=BLOCKS) -> Mesh:
    return join(*(box(extents, centre) for extents, centre in boxes))


def block_arrays(boxes=BLOCKS, count: int = 4000, seed: int = 0) -> dict[str, np.ndarray]:
    """All arrays of the shape made of boxes."""
    from pipeline.samples.surface import draw_on_surface

    rng = np.random.default_rng(seed)
    surface, normals = draw_on_surface(blocks_mesh(boxes), count, rng)
    return _arrays(surface, normals, lambda points: blocks_sdf(points, boxes), rng)


def ball_arrays(radius: float, centre=(0.0, 0.0, 0.0), count: int = 4000, seed: int = 0) -> dict[str, np.ndarray]:
    """All arrays of a ball."""
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return _arrays(radius * normals + centre, normals, lambda points: sphere_sdf(points, radius, centre), rng)


def lattice(resolution: int = 64) -> np.ndarray:
    """Cell centres of the cube [-0.5, 0.5]^3, (resolution^3, 3), x slowest."""
    centres = (np.arange(resolution) + 0.5) / resolution - 0.5
    return np.stack(np.meshgrid(centres, centres, centres, indexing="ij"), axis=-1).reshape(-1, 3)


def tiny_model(name: str, train_shapes: int = 3, seed: int = 0, inference: dict | None = None, **settings) -> Model:
    """A small model; keywords lie over the tiny settings."""
    module = registry.load(name)
    return build_model(
        name,
        module.ModelSettings(**{**TINY.get(name, {}), **settings}),
        module.InferenceSettings(**{**TINY_INFERENCE.get(name, {}), **(inference or {})}),
        train_shapes,
        seed,
    )


def _arrays(surface, normals, sdf, rng: np.random.Generator) -> dict[str, np.ndarray]:
    count = len(surface)
    volume = rng.uniform(-0.55, 0.55, (count, 3)).astype(np.float32)
    arrays = {
        "surface.points": surface.astype(np.float32),
        "surface.normals": normals.astype(np.float32),
        "volume.points": volume,
        "volume.occupancies": sdf(volume) < 0,
        "sdf.volume": sdf(volume).astype(np.float32),
        "voxels.64": (sdf(lattice()) < 0).reshape(64, 64, 64),
    }
    for sigma in (0.1, 0.01):
        points = (surface + rng.normal(0, sigma, (count, 3))).astype(np.float32)
        arrays[f"boundary-{sigma}.points"] = points
        arrays[f"boundary-{sigma}.occupancies"] = sdf(points) < 0
        arrays[f"sdf.boundary-{sigma}"] = sdf(points).astype(np.float32)
    return arrays
