"""Raw meshes that bound solids already: kept as they are, nested parts made one, or crossing ones united."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry.clean import flipped, without_degenerate_faces, without_unused_vertices
from pipeline.geometry.closest import Scene
from pipeline.geometry.measures import volume
from pipeline.geometry.quality import edge_counts, face_components, is_winding_consistent, self_intersections
from pipeline.geometry.repair import with_agreeing_windings, with_split_vertices
from pipeline.geometry.simplify import simplified
from pipeline.geometry.solids import mesh_of, solid

COLLAPSE = 1e-9  # longest edges; how far the surface may move where faces without area are taken out of a closed mesh


@dataclass(frozen=True)
class Closed:
    """A closed manifold mesh of agreeing windings in its connected parts. crosses: faces of it intersect."""

    parts: list[Mesh]
    crosses: bool


def closed(mesh: Mesh) -> Closed:
    """The mesh as closed parts with agreeing windings; Rejected for open or crowded edges and unorientable faces.

    mesh: vertices welded, without duplicate faces.
    """
    mesh = _oriented(mesh)
    return Closed(split(mesh), self_intersections(mesh) > 0)


def kept(shape: Closed, hollow: bool = True) -> Mesh:
    """The solid that parts bound which do not cross, every surface unchanged.

    Parts are judged by nesting: a part inside another and wound inward is a cavity and stays (unless `hollow` is
    False: then the outermost parts alone do), one wound outward is inside solid matter and goes. Raises Rejected where
    parts cross.
    """
    if shape.crosses:
        raise Rejected("its faces cross")
    return nested(shape.parts, hollow)


def united(shape: Closed) -> Mesh:
    """The exact union of closed parts that cross (manifold3d); cut lines are the only new vertices.

    Raises Rejected where nothing crosses, a part crosses itself, or a part turned inward lies within others' bounds.
    """
    if not shape.crosses:
        raise Rejected("no parts cross")
    if any(self_intersections(part) for part in shape.parts):
        raise Rejected("a part crosses itself")
    return union(shape.parts)


def _oriented(mesh: Mesh) -> Mesh:
    """The closed mesh as a manifold of agreeing windings without degenerate faces."""
    proper = without_degenerate_faces(mesh)
    needed = len(proper.faces) < len(mesh.faces) and _open_edges(mesh) == (0, 0)  # flat faces may close gaps
    mesh = mesh if needed else proper
    boundary, crowded = _open_edges(mesh)
    if boundary or crowded:
        raise Rejected(f"open edges: {boundary}, edges of more than two faces: {crowded}")
    mesh = with_split_vertices(with_agreeing_windings(mesh))
    if not is_winding_consistent(mesh):
        raise Rejected("its faces cannot be oriented")
    return simplified(mesh, COLLAPSE) if needed else mesh


def _open_edges(mesh: Mesh) -> tuple[int, int]:
    counts = edge_counts(mesh)
    return counts["boundary"], counts["nonmanifold"]


def split(mesh: Mesh) -> list[Mesh]:
    """The connected components as meshes of their own."""
    of_face = face_components(mesh)
    order = np.argsort(of_face, kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(of_face))[:-1])
    return [without_unused_vertices(Mesh(mesh.vertices, mesh.faces[group])) for group in groups]


def nested(parts: list[Mesh], hollow: bool = True) -> Mesh:
    """Disjoint closed parts as one solid: those that separate solid matter from void, the outermost turned outward."""
    holds = containment(parts)  # [i, j]: part i holds part j
    outermost = ~holds.any(axis=0)
    volumes = np.array([volume(part) for part in parts])
    parts = [flipped(p) if out and v < 0 else p for p, out, v in zip(parts, outermost, volumes, strict=True)]
    signs = np.where(outermost, 1, np.sign(volumes)).astype(int)
    around = signs @ holds  # how often the matter just outside each part is covered
    borders = np.minimum(around, around + signs) == 0 if hollow else outermost
    return joined([part for part, stays in zip(parts, borders, strict=True) if stays])


def union(parts: list[Mesh]) -> Mesh:
    """The union of closed parts that may cross."""
    from manifold3d import Manifold, OpType

    solids = []
    for part, inside in zip(parts, _box_holds(parts).any(axis=0), strict=True):
        if volume(part) < 0 and inside:
            raise Rejected("parts cross, and one of them may be a cavity")
        part = flipped(part) if volume(part) < 0 else part
        solids.append(solid(part))
    return mesh_of(Manifold.batch_boolean(solids, OpType.Add))


def containment(parts: list[Mesh]) -> np.ndarray:
    """Whether part i holds part j, (p, p) bool, for closed parts that do not cross."""
    holds = _box_holds(parts)
    for i in np.flatnonzero(holds.any(axis=1)):
        scene = Scene(parts[i])
        for j in np.flatnonzero(holds[i]):
            # Parts may touch: the vertex farthest from the other part tells on which side this one lies.
            vertices = parts[j].vertices
            farthest = vertices[scene.distance(vertices).argmax()]
            holds[i, j] = scene.occupancy(farthest[None])[0]
    return holds


def joined(parts: list[Mesh]) -> Mesh:
    """Several meshes side by side in one."""
    starts = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
    faces = [part.faces + start for part, start in zip(parts, starts, strict=True)]
    return Mesh(np.concatenate([part.vertices for part in parts]), np.concatenate(faces))


def _box_holds(parts: list[Mesh]) -> np.ndarray:
    """Whether the box of part i holds that of part j, (p, p) bool; no part holds itself."""
    low, high = np.stack([part.bounds for part in parts], axis=1)  # (p, 3) each
    holds = (low[:, None] <= low).all(axis=2) & (high[:, None] >= high).all(axis=2)
    np.fill_diagonal(holds, False)
    return holds
