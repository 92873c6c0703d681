"""Rendered views of a shape with their cameras, as 3D-R2N2's renderings of ShapeNet (Choy et al., ECCV 2016).

Rays are cast through every pixel, so nothing but the processor is needed. Shapes have no material here: they are grey,
lit from the camera and from above its left shoulder (the originals have ShapeNet's colours and textures).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from pipeline.settings import Settings

Interval = tuple[float, float]


class ViewSettings(Settings):
    """Views drawn uniformly from ranges. The defaults are 3D-R2N2's."""

    views: PositiveInt = 24
    """Views per shape. Independent draws: fewer views are the first of many."""

    resolution: Annotated[int, Field(ge=16, le=1024)] = 137
    """Pixels along each edge of a view. 3D-R2N2: 137; Occupancy Networks feeds its encoder 224."""

    azimuth: Interval = (0.0, 360.0)
    """Range of the angle around the up axis, degrees; 0 looks from the next axis's positive end (up y: from +x)."""

    elevation: Interval = (25.0, 30.0)
    """Range of the angle above the horizon, degrees."""

    distance: Interval = (0.65, 0.95)
    """Range of the camera's distance from the box's centre, as a share of `farthest`."""

    farthest: Annotated[float, Field(gt=0)] = 1.75
    """What a distance of 1 means, in diagonals of the shape's box (ShapeNet's own models have a diagonal of 1)."""

    focal_length: Annotated[float, Field(gt=0)] = 35 / 32
    """Focal length in widths of the image: a lens of 35 mm before a sensor of 32 mm, 49 degrees from edge to edge."""

    up: Literal["x", "y", "z"] = "y"
    """Axis that points up. ShapeNet: y."""

    supersampling: Annotated[int, Field(ge=1, le=8)] = 2
    """Rays along each edge of a pixel; edges have supersampling^2 + 1 degrees of transparency."""

    depth: bool = False
    """Store the depth of every pixel too, which completion from a depth view asks for: 0.9 MB per shape at 137 pixels,
    before compression."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name, lowest, highest in (("azimuth", -360, 360), ("elevation", -90, 90), ("distance", 0, 10)):
            low, high = getattr(self, name)
            if not lowest <= low <= high <= highest:
                raise ValueError(f"{name}: a range is [low, high] within [{lowest}, {highest}], not [{low}, {high}]")
        if self.distance[0] * self.farthest <= 0.5:
            raise ValueError(
                f"distance: {self.distance[0]} x farthest {self.farthest} puts the camera inside the shape's box; the "
                f"product must be above 0.5"
            )
        return self


import numpy as np

from pipeline.arrays import Mesh, Product
from pipeline.geometry.closest import Scene
from pipeline.samples.solid import queryable, significant
from pipeline.storage import png_encoding, points_encoding, rounded

ROLLS = {"x": -1, "y": 0, "z": 1}  # how far the axes are rolled to bring y, which the formulas take for up, there
LIGHT = np.array([-1.0, -2.0, -1.5], np.float32) / np.float32(7.25) ** 0.5  # towards it, camera axes
SLIPPED = 1e-3  # by how much a ray that slips through an edge sees farther than those beside it, at least
AMBIENT, FRONTAL, SIDE = 0.25, 0.3, 0.4  # what a face gets at most: everywhere, from the camera, from the light


def render_views(mesh: Mesh, settings: ViewSettings, rng: np.random.Generator) -> Product:
    """Pictures and cameras of V views with S pixels along each edge, the cameras looking at the centre of the box.

    images (V, S, S, 4) uint8, RGBA, rows from the top; colour not multiplied by alpha, black where alpha is 0.
    intrinsics (V, 3, 3) float32: camera to pixels, pixel i spanning [i, i + 1]. extrinsics (V, 3, 4) float32:
    canonical to camera, whose axes are right, down and ahead. viewpoints (V, 3) float32: azimuth and elevation in
    degrees, distance as in the settings. With `depth`, depths (V, S, S) float32 to 0.05 thousandths: how far along the
    camera's third axis the centre of a pixel meets the surface, 0 where it meets nothing. The mesh must be wound
    outward. Raises Rejected where its area is zero.
    """
    scene = queryable(mesh)
    lows, highs = np.transpose([settings.azimuth, settings.elevation, settings.distance])
    viewpoints = lows + rng.random((settings.views, 3)) * (highs - lows)
    low, high = mesh.bounds
    unit = float(np.linalg.norm(high - low)) * settings.farthest
    extrinsics = np.stack([camera(*viewpoint, unit, (low + high) / 2, settings.up) for viewpoint in viewpoints])
    intrinsics = intrinsic_matrix(settings.focal_length, settings.resolution)
    images = np.stack([_picture(scene, mesh.bounds, intrinsics, pose, settings) for pose in extrinsics])
    value = {
        "images": images,
        "intrinsics": np.repeat(intrinsics[None], settings.views, axis=0).astype(np.float32),
        "extrinsics": extrinsics.astype(np.float32),
        "viewpoints": viewpoints.astype(np.float32),
    }
    covered = images[..., 3].mean(axis=(1, 2)) / 255
    figures = {"covered_share": {"least": significant(covered.min()), "mean": significant(covered.mean())}}
    encoding = {"images": png_encoding(images)}
    if settings.depth:
        depths = np.stack([_depth(scene, intrinsics, pose, settings.resolution) for pose in extrinsics])
        encoding["depths"] = points_encoding(depths, "uint16")
        value["depths"] = rounded(depths, encoding["depths"])
    return Product(value, figures=figures, encoding=encoding)


def camera(
    azimuth: float, elevation: float, distance: float, unit: float, centre: np.ndarray, up: str = "y"
) -> np.ndarray:
    """The 3 x 4 matrix from canonical to camera coordinates (right, down, ahead) of a camera that looks at `centre`.

    It stands `distance` times `unit` away, in 3D-R2N2's sense of the angles (degrees): with y up, in the direction
    (cos e cos a, sin e, cos e sin a).
    """
    a, e = np.radians([azimuth, elevation])
    rotation = np.array(
        [
            (np.sin(a), 0.0, -np.cos(a)),
            (np.sin(e) * np.cos(a), -np.cos(e), np.sin(e) * np.sin(a)),
            (-np.cos(e) * np.cos(a), -np.sin(e), -np.cos(e) * np.sin(a)),
        ]
    )
    rotation = np.roll(rotation, ROLLS[up], axis=1)
    shift = np.array([0.0, 0.0, distance * unit]) - rotation @ centre
    return np.column_stack([rotation, shift])


def intrinsic_matrix(focal_length: float, resolution: int) -> np.ndarray:
    """Camera to pixel coordinates, (3, 3); the axis of the lens meets the middle of the image."""
    focal, middle = focal_length * resolution, resolution / 2
    return np.array([(focal, 0.0, middle), (0.0, focal, middle), (0.0, 0.0, 1.0)])


def _picture(
    scene: Scene, bounds: np.ndarray, intrinsics: np.ndarray, pose: np.ndarray, settings: ViewSettings
) -> np.ndarray:
    """One view, (S, S, 4) uint8."""
    size, finer = settings.resolution, settings.supersampling
    columns, rows = _window(bounds, intrinsics @ pose, size)
    x, y = (np.arange(part.start * finer, part.stop * finer) / finer + 0.5 / finer for part in (columns, rows))
    picture = np.zeros((size, size, 4), np.uint8)
    if len(x) and len(y):
        # The rays of one pixel lie in a block; its colour is the mean over those that hit.
        light, hit = _seen(scene, x, y, intrinsics, pose)
        blocks = (len(y) // finer, finer, len(x) // finer, finer)
        hits = hit.reshape(blocks).sum(axis=(1, 3))
        grey = light.reshape(blocks).sum(axis=(1, 3)) / np.maximum(hits, 1)
        seen = np.stack([grey, grey, grey, hits / finer**2], axis=-1)
        picture[rows, columns] = np.rint(seen * 255)
    return picture


def _window(bounds: np.ndarray, projection: np.ndarray, size: int) -> tuple[slice, slice]:
    """Columns and rows of the image that the box of the shape may cover; rays elsewhere meet nothing."""
    corners = np.stack(np.meshgrid(*bounds.T, indexing="ij"), axis=-1).reshape(-1, 3)
    projected = corners @ projection[:, :3].T + projection[:, 3]
    pixels = projected[:, :2] / projected[:, 2:]  # the box lies before the camera: the settings see to it
    low = np.clip(np.floor(pixels.min(axis=0)), 0, size).astype(int)
    high = np.clip(np.ceil(pixels.max(axis=0)), 0, size).astype(int)
    return slice(low[0], high[0]), slice(low[1], high[1])


def _seen(scene: Scene, x: np.ndarray, y: np.ndarray, intrinsics: np.ndarray, pose: np.ndarray) -> tuple:
    """Brightness and hit or not of the rays through columns x and rows y of the image, (len(y) * len(x),) each."""
    rays, origins = _rays(x, y, intrinsics, pose)
    reached, normals = scene.first_hits(origins, rays @ pose[:, :3].astype(np.float32))
    hit = np.isfinite(reached)
    light = np.zeros(len(hit), np.float32)
    light[hit] = _light(normals[hit] @ pose[:, :3].astype(np.float32).T, rays[hit])
    return light, hit


def _depth(scene: Scene, intrinsics: np.ndarray, pose: np.ndarray, size: int) -> np.ndarray:
    """Depth of each pixel's centre, (S, S) float32; 0 where its ray meets nothing."""
    centres = np.arange(size) + 0.5
    rays, origins = _rays(centres, centres, intrinsics, pose)
    towards = rays @ pose[:, :3].astype(np.float32)
    reached = scene.first_hits(origins, towards)[0]
    beside = scene.clearance(origins, towards)
    reached = np.where(beside < reached - SLIPPED, beside, reached)
    return np.where(np.isfinite(reached), reached, 0).reshape(size, size)


def _rays(x: np.ndarray, y: np.ndarray, intrinsics: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rays (n, 3) through columns x and rows y of the image, in camera axes and of depth 1, and where they begin,
    (n, 3) canonical."""
    right = (x - intrinsics[0, 2]) / intrinsics[0, 0]
    down = (y - intrinsics[1, 2]) / intrinsics[1, 1]
    rays = np.ones((len(y), len(x), 3), np.float32)
    rays[..., 0], rays[..., 1] = right, down[:, None]
    rays = rays.reshape(-1, 3)
    origin = -(pose[:, 3] @ pose[:, :3]).astype(np.float32)
    return rays, np.broadcast_to(origin, rays.shape)


def _light(normals: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Brightness (n,) of faces with these outward normals (n, 3), seen along these rays (n, 3); in camera axes."""
    rays = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    frontal = np.maximum(-(normals * rays).sum(axis=1), 0)
    return AMBIENT + FRONTAL * frontal + SIDE * np.maximum(normals @ LIGHT, 0)
