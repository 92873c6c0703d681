"""Raw meshes that bound solids already: kept as they are, nested parts made one, or crossing ones united."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry.clean import flipped, without_degenerate_faces
from pipeline.geometry.closest import Scene
from pipeline.geometry.measures import volume
from pipeline.geometry.quality import edge_counts, face_components, is_winding_consistent, self_intersections
from pipeline.geometry.repair import with_agreeing_windings, with_split_vertices
from pipeline.geometry.simplify import simplified
from pipeline.geometry.solids import mesh_of, solid

ROUNDING = 1e-9  # share by which a search is widened, so that rounding loses nothing
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

    Parts are judged by nesting: a part inside another and wound against it is a cavity and stays (unless `hollow` is
    False: then the outermost parts alone do), one wound as it is lies inside solid matter and goes. So a body that is
    inside out as a whole, as mirrored ones are, keeps its cavities. Raises Rejected where parts cross.
    """
    if shape.crosses:
        raise Rejected("its faces cross")
    return nested(shape.parts, hollow)


def united(shape: Closed) -> Mesh:
    """The exact union of closed parts that cross (manifold3d); cut lines are the only new vertices.

    Raises Rejected where nothing crosses, a part crosses itself, or a part within another's bounds is wound against it.
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
    """The connected components as meshes of their own, each with its vertices and faces in their old order."""
    of_face = face_components(mesh)
    of_vertex = np.full(len(mesh.vertices), -1, np.int32)  # those that no face uses are of none
    of_vertex[mesh.faces] = of_face[:, None]
    vertex_order = np.argsort(of_vertex, kind="stable")
    first_vertex = np.searchsorted(of_vertex[vertex_order], np.arange(of_face.max(initial=-1) + 1))
    number = np.empty(len(vertex_order), np.int64)
    number[vertex_order] = np.arange(len(vertex_order))
    faces = number[mesh.faces] - first_vertex[of_face][:, None]
    vertices = np.split(mesh.vertices[vertex_order], first_vertex)[1:]
    face_order = np.argsort(of_face, kind="stable")
    faces = np.split(faces[face_order], np.cumsum(np.bincount(of_face))[:-1])
    return [Mesh(*part) for part in zip(vertices, faces, strict=True)]


def nested(parts: list[Mesh], hollow: bool = True) -> Mesh:
    """Disjoint closed parts as one solid: those that separate solid matter from void, the outermost turned outward.

    What an outermost part holds is turned with it, so parts count as they are wound relative to what is round them.
    """
    holders, held = containment(parts).T
    outermost = np.bincount(held, minlength=len(parts)) == 0
    volumes = np.array([volume(part) for part in parts])
    body = _outermost_holders(holders, held, outermost)
    signs = np.where(outermost, 1, np.sign(volumes) * np.where(volumes < 0, -1, 1)[body]).astype(int)
    around = np.bincount(held, signs[holders], minlength=len(parts))  # how often what is round each part is covered
    borders = np.minimum(around, around + signs) == 0 if hollow else outermost
    turned = volumes[body] < 0
    return joined([flipped(parts[i]) if turned[i] else parts[i] for i in np.flatnonzero(borders)])


def union(parts: list[Mesh]) -> Mesh:
    """The union of closed parts that may cross."""
    from manifold3d import Manifold, OpType

    inverted = np.array([volume(part) < 0 for part in parts])
    holders, held = _box_pairs(parts).T
    if (inverted[holders] != inverted[held]).any():
        raise Rejected("parts cross, and one of them may be a cavity")
    solids = [solid(flipped(part) if turned else part) for part, turned in zip(parts, inverted, strict=True)]
    return mesh_of(Manifold.batch_boolean(solids, OpType.Add))


def containment(parts: list[Mesh]) -> np.ndarray:
    """The pairs (n, 2) of closed parts that do not cross, the first of which holds the second."""
    pairs = _box_pairs(parts)
    starts = np.flatnonzero(np.diff(pairs[:, 0], prepend=-1))
    inside = [_holds(parts[group[0, 0]], [parts[i] for i in group[:, 1]]) for group in np.split(pairs, starts)[1:]]
    return pairs[np.concatenate([np.zeros(0, bool), *inside])]


def _holds(part: Mesh, others: list[Mesh]) -> np.ndarray:
    """Which of other parts the part holds, (n,) bool.

    Parts may touch: the vertex farthest from the part tells on which side of it another lies.
    """
    scene = Scene(part)
    vertices = np.concatenate([other.vertices for other in others])
    counts = np.array([len(other.vertices) for other in others])
    owner = np.repeat(np.arange(len(others)), counts)
    order = np.lexsort((scene.distance(vertices), owner))
    farthest = order[np.cumsum(counts) - 1]
    return scene.occupancy(vertices[farthest])


def _outermost_holders(holders: np.ndarray, held: np.ndarray, outermost: np.ndarray) -> np.ndarray:
    """For each part the outermost one that holds it, itself where none does, (p,)."""
    body = np.arange(len(outermost))
    by_outermost = outermost[holders]
    body[held[by_outermost]] = holders[by_outermost]
    return body


def joined(parts: list[Mesh]) -> Mesh:
    """Several meshes side by side in one."""
    starts = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
    faces = [part.faces + start for part, start in zip(parts, starts, strict=True)]
    return Mesh(np.concatenate([part.vertices for part in parts]), np.concatenate(faces))


def _box_pairs(parts: list[Mesh]) -> np.ndarray:
    """The pairs (n, 2) of parts, in ascending order, the first of whose boxes holds the second's; none holds itself.

    A box holds another where its lower corner is nowhere above the other's and its upper one nowhere below. In the six
    dimensions of both corners those boxes are the points of an orthant, which a search tree finds without a look at all
    pairs: a cube as wide as twice what there is, with its corner at the other box.
    """
    from scipy.spatial import cKDTree

    low, high = np.stack([part.bounds for part in parts], axis=1)  # (p, 3) each
    corners = np.concatenate([low, -high], axis=1)
    reach = np.ptp(corners, axis=0).max() + np.abs(corners).max()
    tree = cKDTree(corners)
    found = tree.query_ball_point(corners - reach, reach * (1 + ROUNDING), p=np.inf)
    holders = np.concatenate(found).astype(np.int64)
    held = np.repeat(np.arange(len(parts)), [len(row) for row in found])
    true = (corners[holders] <= corners[held]).all(axis=1) & (holders != held)
    order = np.lexsort((held[true], holders[true]))
    return np.stack([holders[true], held[true]], axis=1)[order]
