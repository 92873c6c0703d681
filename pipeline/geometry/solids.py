"""Meshes to solids of the manifold3d library and back, for Boolean operations and for saving faces; cut polygons."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

import numpy as np

from pipeline.arrays import Mesh, Rejected

if TYPE_CHECKING:
    from manifold3d import Manifold


def solid(mesh: Mesh) -> Manifold:
    """The mesh as a solid; raises Rejected where it is not manifold, or nothing."""
    from manifold3d import Error, Manifold, Mesh64

    _one_thread()
    body = Manifold(Mesh64(np.array(mesh.vertices), mesh.faces.astype(np.uint64)))  # the library takes no frozen array
    if body.status() != Error.NoError or body.is_empty():
        raise Rejected(f"it is not manifold ({body.status()})")
    return body


def mesh_of(body: Manifold) -> Mesh:
    """The surface of a solid; raises Rejected where it is nothing."""
    surface = body.to_mesh64()
    if len(surface.tri_verts) == 0:
        raise Rejected("nothing of it is left")
    return Mesh(surface.vert_properties[:, :3], surface.tri_verts)


def cut_outline(points: np.ndarray) -> np.ndarray:
    """Triangles (f, 3) int64 of corners that cover a polygon (n, 2) of any form, counter-clockwise as it is itself.

    Corners may lie on each other, as where a bridge leads to a hole. A polygon that crosses itself is covered somehow.
    """
    from manifold3d import triangulate

    _one_thread()
    return triangulate([points]).astype(np.int64)


@functools.cache
def _one_thread() -> None:
    """Keep the library to one thread a process: a worker has one core, and others have the rest.

    It has no setting for that, but counts the processors that the process may use when it first runs, and never again.
    """
    from manifold3d import Manifold

    process = os.getpid()
    allowed = os.sched_getaffinity(process)
    os.sched_setaffinity(process, {min(allowed)})
    try:
        Manifold.cube().num_tri()
    finally:
        os.sched_setaffinity(process, allowed)
