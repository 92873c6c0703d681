"""Skins of glTF: vertices that hang on joints, which are nodes of the scene, in the pose the file is in.

Section 3.7.3 "Skins" of the glTF 2.0 specification (Khronos Group).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pipeline.arrays import Mesh, Rejected
from pipeline.meshes.gltf_accessors import Accessors
from pipeline.meshes.gltf_json import Part, damaged


def skinned(mesh: Mesh, attributes: Part, skin: Part, matrices: Mapping[int, np.ndarray], accessors: Accessors) -> Mesh:
    """The mesh where the joints of its skin hold it, in the scene's frame; its node's own place means nothing.

    attributes: of the mesh's primitive; matrices: node → transform (4, 4), of every node of the scene. Weights that do
    not add up to 1 are scaled until they do; a vertex without weights hangs on its first joint.
    """
    poses = _poses(skin, matrices, accessors)
    points, total = np.zeros_like(mesh.vertices), np.zeros((len(mesh.vertices), 1))
    number = 0
    while attributes.has(f"JOINTS_{number}"):
        joints = _joints(attributes, f"JOINTS_{number}", len(poses), len(points), accessors)
        weights = accessors.of_vertices(attributes, f"WEIGHTS_{number}", "VEC4", len(points)).astype(np.float64)
        if number == 0:
            first = joints[:, 0]
        for joint, weight in zip(joints.T, weights.T[..., None], strict=True):
            points += weight * _moved(mesh.vertices, poses[joint])
            total += weight
        number += 1
    if number == 0 or (total < 0).any():
        raise Rejected("a vertex of a skin hangs on no joint")
    loose = total[:, 0] == 0
    points[loose] = _moved(mesh.vertices[loose], poses[first[loose]])
    total[loose] = 1
    return Mesh(points / total, mesh.faces)


def _poses(skin: Part, matrices: Mapping[int, np.ndarray], accessors: Accessors) -> np.ndarray:
    """What each joint does to vertices that hang on it alone, (j, 4, 4)."""
    joints = skin.wholes("joints")
    if not joints:
        raise damaged(f"{skin.name} has no joints")
    for joint in joints:
        if joint not in matrices:
            raise damaged(f"{skin.name} names node {joint} as a joint, which is not in the scene")
    poses = np.stack([matrices[joint] for joint in joints])
    if not skin.has("inverseBindMatrices"):
        return poses
    bound = accessors.values(skin, "inverseBindMatrices", "MAT4")
    if len(bound) < len(poses):
        raise damaged(f"{skin.name} has {len(bound)} inverseBindMatrices for {len(poses)} joints")
    return poses @ bound[: len(poses)].reshape(-1, 4, 4).transpose(0, 2, 1)


def _joints(attributes: Part, key: str, count: int, vertices: int, accessors: Accessors) -> np.ndarray:
    """The joints (v, 4) that vertices hang on, each one of `count`."""
    joints = accessors.of_vertices(attributes, key, "VEC4", vertices)
    if joints.dtype.kind not in "iu":
        raise damaged(f"{key} of {attributes.name} holds fractions instead of the numbers of joints")
    if joints.min() < 0 or joints.max() >= count:
        wrong = joints.min() if joints.min() < 0 else joints.max()
        raise damaged(f"a vertex hangs on joint {wrong} of {count}: {key} of {attributes.name}")
    return joints


def _moved(points: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Points (n, 3), each under its own transform (n, 4, 4)."""
    return np.einsum("nij,nj->ni", poses[:, :3, :3], points) + poses[:, :3, 3]
