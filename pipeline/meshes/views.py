"""What can be seen of a surface from far away, by rays; those that slip through edges see nothing (`Scene.blocked`)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.geometry.closest import Scene

VIEWS_AT_ONCE = 8  # most points are seen in one of the first views and need no more
GRAZING = 0.1  # cosine; flatter views do not count, they look into gaps ten times as deep as wide
STEP_OFF = 1e-4  # how far in front of its face a point is looked at from, so that doubled faces do not hide it


def hidden(scene: Scene, points: np.ndarray, normals: np.ndarray, directions: int) -> np.ndarray:
    """Rows of the surface points (n, 3) from which, on either side, nothing in any direction leads to infinity."""
    left = np.arange(len(points))
    for views in np.array_split(sphere_directions(directions), directions // VIEWS_AT_ONCE):
        left = left[~_free(scene, points[left], normals[left], views).any(axis=1)]
        if len(left) == 0:
            break
    return left


def hidden_points(scene: Scene, points: np.ndarray, directions: int) -> np.ndarray:
    """Whether from each point (n, 3) off the surface nothing in any direction leads to infinity, (n,) bool."""
    left = np.arange(len(points))
    for view in sphere_directions(directions):
        left = left[scene.blocked(points[left], np.broadcast_to(view, (len(left), 3)))]
    is_hidden = np.zeros(len(points), bool)
    is_hidden[left] = True
    return is_hidden


def escapes(scene: Scene, points: np.ndarray, normals: np.ndarray, directions: int) -> np.ndarray:
    """In how many directions on the side the normals point to each surface point looks into infinity, (n,) int."""
    views = sphere_directions(directions)
    front = normals @ views.T >= GRAZING
    return (_free(scene, points, normals, views) & front).sum(axis=1)


def lines_of_sight(
    scene: Scene, points: np.ndarray, normals: np.ndarray, directions: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For every view, the surface points (rows of (n, 3)) that see infinity in it, and its unit vector (3,)."""
    for view in sphere_directions(directions):
        yield np.flatnonzero(_free(scene, points, normals, view[None])[:, 0]), view


def sphere_directions(count: int) -> np.ndarray:
    """Well-spread unit vectors (count, 3) on a golden spiral, in an order whose every run covers the sphere."""
    rank = np.arange(count) + 0.5
    height, turn = 1 - 2 * rank / count, np.pi * (1 + 5**0.5) * rank
    ring = np.sqrt(1 - height**2)
    spiral = np.stack([ring * np.cos(turn), ring * np.sin(turn), height], axis=1)
    return spiral[np.random.default_rng(0).permutation(count)]


def _free(scene: Scene, points: np.ndarray, normals: np.ndarray, views: np.ndarray) -> np.ndarray:
    """Whether each point (n, 3) sees infinity in each view (v, 3), from the side of its face the view is on, (n, v)."""
    facing = normals @ views.T
    origins = points[:, None] + STEP_OFF * np.sign(facing)[..., None] * normals[:, None]
    rays = np.broadcast_to(views, origins.shape)
    blocked = scene.blocked(origins.reshape(-1, 3), rays.reshape(-1, 3)).reshape(facing.shape)
    return ~blocked & (np.abs(facing) >= GRAZING)
