"""Shape arrays of analytic shapes, as the data stages would give them, and tiny settings of every model."""

from __future__ import annotations

import numpy as np

from pipeline.arrays import Mesh
from pipeline.models import registry
from pipeline.models.contract import Model, build_model
from pipeline.samples.views import camera, intrinsic_matrix
from tests.solids import box, box_sdf, join, sphere_sdf

# Disjoint boxes (extents, centre): no symmetry, no two edges of a box alike, off centre, inside [-0.5, 0.5]^3.
BLOCKS = (
    ((0.60, 0.36, 0.30), (-0.15, 0.30, 0.20)),
    ((0.30, 0.50, 0.40), (0.30, -0.20, -0.20)),
    ((0.36, 0.30, 0.50), (-0.25, -0.25, 0.15)),
)
# The same with its axes in another order and one of them mirrored: a mix-up cannot serve both.
TURNED = tuple(((y, z, x), (-cy, cz, cx)) for (x, y, z), (cx, cy, cz) in BLOCKS)

# Settings of the cases that the contract tests run: every model, and its variants as "<model>/<variant>".
TINY: dict[str, dict] = {
    "onet": {
        "hidden": 32,
        "blocks": 2,
        "code": 16,
        "encoder_hidden": 16,
        "encoder_blocks": 2,
        "queries": 256,
        "observation": {"points": 100},
    },
    "onet/image": {
        "hidden": 32,
        "blocks": 2,
        "code": 16,
        "encoder_hidden": 32,
        "queries": 256,
        "observation": {"kind": "view", "size": 48},
    },
    "onet/voxel": {
        "hidden": 32,
        "blocks": 2,
        "code": 16,
        "encoder_hidden": 32,
        "queries": 256,
        "observation": {"kind": "voxels"},
    },
    "onet/unconditional": {
        "hidden": 32,
        "blocks": 2,
        "latent": 8,
        "latent_hidden": 32,
        "decoder": "simple",
        "queries": 256,
        "observation": {"kind": "nothing"},
    },
    "convonet": {
        "observation": {"points": 150},
        "plane_resolution": 16,
        "plane_depth": 2,
        "plane_width": 8,
        "code": 8,
        "encoder_hidden": 8,
        "encoder_blocks": 2,
        "hidden": 16,
        "blocks": 2,
        "queries": 256,
    },
    "convonet/grid": {
        "observation": {"points": 150},
        "maps": ("grid",),
        "grid_resolution": 12,
        "grid_levels": 2,
        "grid_width": 8,
        "code": 8,
        "encoder_hidden": 8,
        "encoder_blocks": 2,
        "hidden": 16,
        "blocks": 2,
        "queries": 256,
    },
    "convonet/voxels": {
        "observation": {"kind": "voxels", "resolution": 16},
        "plane_resolution": 16,
        "plane_depth": 2,
        "plane_width": 8,
        "code": 8,
        "hidden": 16,
        "blocks": 2,
        "queries": 256,
    },
    "ifnet": {
        "observation": {"points": 150, "resolution": 16},
        "stem": 4,
        "levels": ((8, 8), (8, 8)),
        "decoder": (32, 32),
        "queries": 256,
    },
    "ifnet/voxels": {
        "observation": {"kind": "voxels", "resolution": 16},
        "stem": None,
        "levels": ((4, 8), (8, 8), (8, 8)),
        "decoder": (32, 32),
        "displacement": 0.035,
        "outside": "zeros",
        "queries": 256,
    },
    "deepsdf": {"dims": (32,) * 4, "latent_in": (2,), "code": 8, "samples": 256, "dropout": 0.0},
    "neuralpull": {
        "observation": {"points": 100, "noise": 0.0},
        "neighbours": 10,
        "queries": ((1.0, 5),),
        "hidden": 16,
        "layers": 3,
        "skip": 2,
    },
    "neuralpull/tf": {
        "observation": {"points": 100, "noise": 0.0},
        "neighbours": 10,
        "queries": ((2.0, 3), (1.0, 2)),
        "reference_density": None,
        "architecture": "tf",
        "hidden": 16,
        "layers": 2,
    },
    "neuralpull_image": {"hidden": 16, "layers": 2, "points": 300, "neighbours": 10, "queries": 64},
    "deepsdf_completion": {"points": 100},
    "poisson": {"depth": 4},
    "airnet": {
        "levels": (32, 16),
        "width": 24,
        "first_width": 16,
        "neighbours": 6,
        "first_neighbours": 6,
        "full_blocks": 1,
        "decoder_width": 24,
        "decoder_neighbours": 4,
        "hidden": 24,
        "blocks": 2,
        "queries": 256,
        "observation": {"points": 100, "noise": 0.0},
    },
    "imnet": {"code": 8, "encoder_width": 2, "decoder_width": 8, "decoder_std": None, "points": 512},
    "imnet_gan": {"noise": 8, "hidden": 32, "initial_std": 0.1},
    "imnet_svr": {"width": 4, "size": 32},
    "nmf": {
        "code": 16,
        "encoder": (16, 16),
        "hidden": 16,
        "norm_hidden": 16,
        "subdivision": 1,
        "targets": 100,
        "observation": {"points": 100, "noise": 0.0},
    },
    "nmf_svr": {"width": 4, "size": 32, "features": 16, "hidden": 32, "points": 50},
}
TINY_INFERENCE: dict[str, dict] = {
    "nmf": {"subdivision": 2},
    "nmf_svr": {"subdivision": 2},
    "deepsdf": {"iterations": 20, "samples": 256},
    "deepsdf_completion": {"iterations": 10},
    "neuralpull": {"iterations": 10, "batch_queries": 64, "warmup": 4},
    "neuralpull/tf": {
        "iterations": 10,
        "batch_queries": 64,
        "warmup": 0,
        "schedule": "constant",
        "adam_epsilon": "uncorrected",
    },
}

# Case of the parent of a case, for models that build on another.
PARENTS: dict[str, str] = {
    "imnet_gan": "imnet",
    "imnet_svr": "imnet",
    "neuralpull_image": "onet/image",
    "nmf_svr": "nmf",
    "deepsdf_completion": "deepsdf",
}


def cases() -> tuple[str, ...]:
    """All models and variants, sorted."""
    return tuple(sorted({*registry.available_models(), *TINY}))


def declaration_of(case: str):
    """The declaration of a case with its tiny settings."""
    name = case.split("/")[0]
    return registry.declaration(name, registry.head(name).ModelSettings(**TINY.get(case, {})))


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


def tiny_model(case: str, train_shapes: int = 3, seed: int = 0, inference: dict | None = None, **settings) -> Model:
    """A small model, on an untrained parent where it needs one; keywords lie over the tiny settings."""
    name = case.split("/")[0]
    module = registry.load(name)
    return build_model(
        name,
        module.ModelSettings(**{**TINY.get(case, {}), **settings}),
        module.InferenceSettings(**{**TINY_INFERENCE.get(case, {}), **(inference or {})}),
        train_shapes,
        seed,
        tiny_model(PARENTS[case], train_shapes) if case in PARENTS else None,
    )


def lattice_occupancies(sdf, resolution: int) -> np.ndarray:
    """(R, R, R) bool, as the stage `voxelize` gives it."""
    return (sdf(lattice(resolution)) < 0).reshape((resolution,) * 3)


def silhouettes(points: np.ndarray, views: int = 4, size: int = 32) -> np.ndarray:
    """(views, size, size, 4) uint8: the points splatted from directions around the y axis, brighter where nearer."""
    images = np.zeros((views, size, size, 4), np.uint8)
    for view, angle in enumerate(2 * np.pi * np.arange(views) / views):
        across = np.cos(angle) * points[:, 0] + np.sin(angle) * points[:, 2]
        depth = np.cos(angle) * points[:, 2] - np.sin(angle) * points[:, 0]
        order = np.argsort(depth)
        column, row = (np.clip((x + 0.9) / 1.8 * size, 0, size - 1).astype(int)[order] for x in (across, -points[:, 1]))
        images[view, row, column, :3] = np.clip(128 + 200 * depth[order], 0, 255)[:, None]
        images[view, row, column, 3] = 255
    return images


def depth_view(sdf, size: int = 48) -> dict[str, np.ndarray]:
    """One depth image of a shape with its camera, as `render_views` gives them; rays go by what the distance allows."""
    pose, intrinsics = camera(30.0, 25.0, 1.0, 1.75, np.zeros(3)), intrinsic_matrix(35 / 32, size)
    rows, columns = np.indices((size, size)).reshape(2, -1) + 0.5
    rays = np.column_stack([(columns - size / 2), (rows - size / 2), np.full(size**2, intrinsics[0, 0])])
    rays = rays / intrinsics[0, 0] @ pose[:, :3]
    origin, depth = -pose[:, 3] @ pose[:, :3], np.zeros(size**2)
    for _ in range(40):
        distance = sdf(origin + depth[:, None] * rays)
        depth += distance / np.linalg.norm(rays, axis=1)
    depth[(distance > 1e-4) | (depth > 4)] = 0
    return {
        "views.depths": depth.reshape(1, size, size).astype(np.float32),
        "views.intrinsics": intrinsics[None].astype(np.float32),
        "views.extrinsics": pose[None].astype(np.float32),
    }


def _arrays(surface, normals, sdf, rng: np.random.Generator) -> dict[str, np.ndarray]:
    count = len(surface)
    volume = rng.uniform(-0.55, 0.55, (count, 3)).astype(np.float32)
    arrays = {
        "surface.points": surface.astype(np.float32),
        "surface.normals": normals.astype(np.float32),
        "volume.points": volume,
        "volume.occupancies": sdf(volume) < 0,
        "sdf.volume": sdf(volume).astype(np.float32),
        **{f"voxels.{resolution}": lattice_occupancies(sdf, resolution) for resolution in (16, 32, 64)},
        "views.images": silhouettes(surface),
        **depth_view(sdf),
    }
    for sigma in (0.1, 0.01):
        points = (surface + rng.normal(0, sigma, (count, 3))).astype(np.float32)
        arrays[f"boundary-{sigma}.points"] = points
        arrays[f"boundary-{sigma}.occupancies"] = sdf(points) < 0
        arrays[f"sdf.boundary-{sigma}"] = sdf(points).astype(np.float32)
    return arrays
