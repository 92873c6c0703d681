"""Areas, normals and volumes of triangle meshes; numpy alone, so that every stage may use it."""

from __future__ import annotations

import numpy as np

from pipeline.arrays import Mesh


def face_cross(mesh: Mesh) -> np.ndarray:
    """Twice the area of each face times its unit normal, (f, 3) float64."""
    a, b, c = mesh.triangles.transpose(1, 0, 2)
    return np.cross(b - a, c - a)


def face_areas(mesh: Mesh) -> np.ndarray:
    """Area of each face, (f,) float64."""
    return np.linalg.norm(face_cross(mesh), axis=1) / 2


def face_normals(mesh: Mesh) -> np.ndarray:
    """Unit normal of each face by the right-hand rule, (f, 3) float64; zero for a face without area."""
    cross = face_cross(mesh)
    length = np.linalg.norm(cross, axis=1, keepdims=True)
    return np.divide(cross, length, out=np.zeros_like(cross), where=length > 0)


def area(mesh: Mesh) -> float:
    """Area of the surface."""
    return float(face_areas(mesh).sum())


def volume(mesh: Mesh) -> float:
    """Signed volume, positive for outward faces; meaningful for closed meshes."""
    return float(face_volumes(mesh).sum())


def face_volumes(mesh: Mesh) -> np.ndarray:
    """Signed volume of the tetrahedron under each face, (f,) float64; the apex is the mean vertex, near the mesh."""
    if len(mesh.faces) == 0:
        return np.zeros(0)
    a, b, c = (mesh.triangles - mesh.vertices.mean(axis=0)).transpose(1, 0, 2)
    return np.einsum("ij,ij->i", a, np.cross(b, c)) / 6
