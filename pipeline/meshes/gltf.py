"""glTF 2.0, as GLB or as JSON with its buffers beside it: triangles of all meshes of the scene, transforms applied.

Skins and morph targets are taken in the pose the file is in, without its animations.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import numpy as np

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry.clean import flipped
from pipeline.geometry.polygons import Polygons
from pipeline.meshes.text import Limits, shown

JSON_CHUNK, BINARY_CHUNK = b"JSON", b"BIN\0"
COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}
TRIANGLES, STRIP, FAN = 4, 5, 6
COMPRESSION = ("KHR_draco_mesh_compression", "EXT_meshopt_compression")
INSTANCES = "EXT_mesh_gpu_instancing"


def parse_gltf(content: bytes, companions: Mapping[str, bytes], limits: Limits) -> Polygons:
    """The triangles of a glTF file. Buffers come from the file itself or from `companions`, never from elsewhere.

    Raises Rejected for a damaged container, a buffer that is missing or too short, compressed geometry, instances by
    an extension, and node trees with a cycle.
    """
    document, binary = _chunks(content) if content[:4] == b"glTF" else (json.loads(content), b"")
    used = [name for name in COMPRESSION if name in document.get("extensionsRequired", ())]
    if used:
        raise Rejected(f"the geometry is compressed with {used[0]}, which is not read")
    return _joined(_Reader(document, binary, companions, limits).placed_meshes(), limits)


def _chunks(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON document and the binary buffer of a GLB."""
    version, length = int.from_bytes(content[4:8], "little"), int.from_bytes(content[8:12], "little")
    if version != 2:
        raise Rejected(f"GLB of version {version}; version 2 is read")
    if length > len(content):
        raise Rejected(f"the header announces {length} bytes, the file holds {len(content)}; it was cut off")
    chunks, at = {}, 12
    while at + 8 <= length:
        size = int.from_bytes(content[at : at + 4], "little")
        if at + 8 + size > length:
            raise Rejected("a chunk reaches beyond the end of the file")
        chunks.setdefault(content[at + 4 : at + 8], content[at + 8 : at + 8 + size])
        at += 8 + size
    return json.loads(chunks.get(JSON_CHUNK, b"{}")), chunks.get(BINARY_CHUNK, b"")


def _joined(meshes: Iterator[Mesh], limits: Limits) -> Polygons:
    """All meshes in one. Instances multiply what a small file holds, so the limits are kept while they add up."""
    vertices, corners, count = [np.zeros((0, 3))], [np.zeros(0, np.int64)], 0
    for mesh in meshes:
        vertices.append(mesh.vertices)
        corners.append(mesh.faces.reshape(-1).astype(np.int64) + count)
        count += len(mesh.vertices)
        limits.check(count, sum(map(len, corners)) // 3)
    joined = np.concatenate(corners)
    return Polygons(np.concatenate(vertices), joined, np.full(len(joined) // 3, 3, np.int64))


class _Reader:
    """One document with its buffers."""

    def __init__(self, document: dict, binary: bytes, companions: Mapping[str, bytes], limits: Limits) -> None:
        self.document, self.binary, self.companions, self.limits = document, binary, companions, limits
        self.buffers: dict[int, bytes] = {}

    def placed_meshes(self) -> Iterator[Mesh]:
        """The triangles of every primitive of the scene, in the scene's frame."""
        matrices = dict(self._scene_nodes())
        for at, matrix in matrices.items():
            node = self.document["nodes"][at]
            if "mesh" not in node:
                continue
            mesh = self.document["meshes"][node["mesh"]]
            for primitive in mesh["primitives"]:
                part = self._primitive(primitive, node.get("weights", mesh.get("weights", ())))
                if "skin" in node and len(part.faces):
                    yield self._skinned(part, primitive, self.document["skins"][node["skin"]], matrices)
                    continue
                moved = Mesh(part.vertices @ matrix[:3, :3].T + matrix[:3, 3], part.faces)
                yield flipped(moved) if np.linalg.det(matrix[:3, :3]) < 0 else moved

    def _scene_nodes(self) -> Iterator[tuple[int, np.ndarray]]:
        """Numbers of all nodes of the scene with their matrices (4, 4), parents before children."""
        nodes = self.document.get("nodes", [])
        waiting = [(root, np.eye(4)) for root in reversed(self._roots(nodes))]
        visited = set()
        while waiting:
            at, parent = waiting.pop()
            if at in visited or at < 0:
                raise Rejected("the nodes of the scene are not a tree")
            visited.add(at)
            if INSTANCES in nodes[at].get("extensions", ()):
                raise Rejected(f"a mesh stands in many places by {INSTANCES}, which is not read")
            matrix = parent @ _matrix(nodes[at])
            yield at, matrix
            waiting += [(child, matrix) for child in reversed(nodes[at].get("children", []))]

    def _roots(self, nodes: list[dict]) -> list[int]:
        scenes = self.document.get("scenes", [])
        if scenes:
            return scenes[self.document.get("scene", 0)].get("nodes", [])
        children = {child for node in nodes for child in node.get("children", [])}
        return [i for i in range(len(nodes)) if i not in children]

    def _primitive(self, primitive: dict, weights: Sequence[float]) -> Mesh:
        """Its triangles in the mesh's frame. weights: how far each of its morph targets is applied."""
        mode = primitive.get("mode", TRIANGLES)
        if mode not in (TRIANGLES, STRIP, FAN):  # points and lines have no surface
            return Mesh(np.zeros((0, 3)), np.zeros((0, 3)))
        points = self._accessor(primitive["attributes"]["POSITION"], "VEC3").astype(np.float64)
        for target, weight in zip(primitive.get("targets", ()), weights, strict=False):
            if weight and "POSITION" in target:
                points += weight * self._of_vertices(target["POSITION"], "VEC3", len(points))
        corners = np.arange(len(points))
        if "indices" in primitive:
            corners = self._accessor(primitive["indices"], "SCALAR").reshape(-1).astype(np.int64)
        if len(corners) and corners.max() >= len(points):
            raise Rejected(f"a face names vertex {corners.max()} of {len(points)}: index out of range")
        return Mesh(points, _triangles(corners, mode))

    def _skinned(self, mesh: Mesh, primitive: dict, skin: dict, matrices: Mapping[int, np.ndarray]) -> Mesh:
        """The mesh where the joints of its skin hold it, in the scene's frame; its node's own place means nothing."""
        poses = np.stack([matrices[joint] for joint in skin["joints"]])
        if "inverseBindMatrices" in skin:
            bound = self._accessor(skin["inverseBindMatrices"], "MAT4")[: len(poses)]
            poses = poses @ bound.reshape(-1, 4, 4).transpose(0, 2, 1)
        points, total = np.zeros_like(mesh.vertices), np.zeros((len(mesh.vertices), 1))
        attributes, number = primitive["attributes"], 0
        while f"JOINTS_{number}" in attributes:
            joints, weights = (
                self._of_vertices(attributes[f"{name}_{number}"], "VEC4", len(points)) for name in ("JOINTS", "WEIGHTS")
            )
            if joints.min() < 0:
                raise Rejected("a vertex names a joint below 0")
            for joint, weight in zip(joints.T, weights.astype(np.float64).T[..., None], strict=True):
                pose = poses[joint]
                points += weight * (np.einsum("nij,nj->ni", pose[:, :3, :3], mesh.vertices) + pose[:, :3, 3])
                total += weight
            number += 1
        if (total <= 0).any():
            raise Rejected("a vertex of a skin hangs on no joint")
        return Mesh(points / total, mesh.faces)

    def _of_vertices(self, index: int, kind: str, count: int) -> np.ndarray:
        """The values of an accessor that must have one for each of `count` vertices."""
        values = self._accessor(index, kind)
        if len(values) != count:
            raise Rejected(f"an accessor has {len(values)} values for {count} vertices")
        return values

    def _accessor(self, index: int, kind: str) -> np.ndarray:
        """The values an accessor describes, (count, width); whole numbers declared as normalised become fractions."""
        accessor = self.document["accessors"][index]
        if accessor["type"] != kind:
            raise Rejected(f"an accessor is of type {shown(str(accessor['type']).encode())} where {kind} is needed")
        if "sparse" in accessor or "bufferView" not in accessor:
            raise Rejected("sparse or empty accessors are not read")
        view = self.document["bufferViews"][accessor["bufferView"]]
        dtype, width = np.dtype(COMPONENTS[accessor["componentType"]]), WIDTHS[kind]
        count, stride = accessor["count"], view.get("byteStride", dtype.itemsize * width)
        inner, outer = accessor.get("byteOffset", 0), view.get("byteOffset", 0)
        needed = inner + stride * (count - 1) + dtype.itemsize * width
        buffer = self._buffer(view["buffer"])
        if min(inner, outer, stride, count) < 0 or needed > view["byteLength"] or outer + needed > len(buffer):
            raise Rejected(f"an accessor of {count} values reaches beyond its buffer")
        self.limits.check(count if width == 3 else 0, count // 3 if width == 1 else 0)
        values = np.ndarray((count, width), dtype, buffer, outer + inner, (stride, dtype.itemsize))
        if accessor.get("normalized") and dtype.kind in "iu":
            return np.maximum(values / np.iinfo(dtype).max, -1)
        return values

    def _buffer(self, index: int) -> bytes:
        if index not in self.buffers:
            self.buffers[index] = self._load(self.document["buffers"][index].get("uri"))
        return self.buffers[index]

    def _load(self, uri: str | None) -> bytes:
        if uri is None:
            return self.binary
        if uri.startswith("data:"):
            return base64.b64decode(uri.partition(",")[2])
        if unquote(uri) not in self.companions:
            raise Rejected(f"the geometry is in another file, {shown(uri.encode())}, which is not there")
        return self.companions[unquote(uri)]


def _matrix(node: dict) -> np.ndarray:
    """The node's transform (4, 4): a column-major matrix, or translation, rotation (x, y, z, w) and scale."""
    if "matrix" in node:
        return np.array(node["matrix"], float).reshape(4, 4).T
    x, y, z, w = node.get("rotation", (0, 0, 0, 1))
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * np.array(node.get("scale", (1, 1, 1)), float)
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix


def _triangles(corners: np.ndarray, mode: int) -> np.ndarray:
    """Corner indices of a primitive as triangles (f, 3)."""
    if mode == TRIANGLES:
        if len(corners) % 3:
            raise Rejected(f"{len(corners)} indices do not make whole triangles")
        return corners.reshape(-1, 3)
    first = np.arange(max(len(corners) - 2, 0))
    if mode == FAN:
        return np.stack([corners[first * 0], corners[first + 1], corners[first + 2]], axis=1)
    odd = first % 2  # every other triangle of a strip runs the other way round
    return np.stack([corners[first], corners[first + 1 + odd], corners[first + 2 - odd]], axis=1)
