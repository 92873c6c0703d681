"""glTF 2.0, as GLB or as JSON with its buffers beside it: triangles of all meshes of the scene, transforms applied.

Skins and morph targets are taken in the pose the file is in, without its animations.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry.clean import flipped
from pipeline.geometry.polygons import Polygons
from pipeline.meshes.gltf_accessors import COMPRESSION, Accessors
from pipeline.meshes.gltf_json import Document, Part, damaged, parse_json
from pipeline.meshes.gltf_skin import skinned
from pipeline.meshes.text import Limits, quoted

JSON_CHUNK, BINARY_CHUNK = b"JSON", b"BIN\0"
TRIANGLES, STRIP, FAN = 4, 5, 6
INSTANCES = "EXT_mesh_gpu_instancing"
# What a file may require: integers as coordinates, which are read, and what decides looks only.
HARMLESS = re.compile(
    "KHR_mesh_quantization|KHR_materials_.*|KHR_lights_.*|KHR_texture_.*|EXT_texture_.*|MSFT_texture_dds|KHR_xmp.*"
)


def parse_gltf(content: bytes, companions: Mapping[str, bytes], limits: Limits) -> Polygons:
    """The triangles of a glTF file. Buffers come from the file itself or from `companions`, never from elsewhere.

    Raises Rejected for a damaged container or document, another version, a buffer that is missing or too short,
    geometry that an extension compresses or repeats, any other extension that the file requires and that is not
    understood, and node trees with a cycle.
    """
    document, binary = _chunks(content) if content[:4] == b"glTF" else (parse_json(content), None)
    _check_version(document)
    _check_extensions(document)
    return _joined(_Scene(document, Accessors(document, binary, companions, limits)).placed_meshes(), limits)


def _chunks(content: bytes) -> tuple[Document, bytes | None]:
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
    if JSON_CHUNK not in chunks:
        raise damaged("the GLB has no JSON chunk")
    return parse_json(chunks[JSON_CHUNK]), chunks.get(BINARY_CHUNK)


def _check_version(document: Document) -> None:
    """Only version 2 is read; what version 1 lists stands in objects, and its "asset" may be missing."""
    version = document.part("asset").values.get("version", "2.0") if document.has("asset") else "2.0"
    if isinstance(document.values.get("meshes"), dict) and str(version).startswith("2."):
        version = "1.0"
    if not str(version).startswith("2."):
        raise Rejected(f"glTF of version {quoted(str(version))}; version 2 is read")


def _check_extensions(document: Document) -> None:
    required = document.texts("extensionsRequired")
    for name in required:
        if name in COMPRESSION:
            raise Rejected(f"the geometry is compressed with {name}, which is not read")
    for name in required:
        if not HARMLESS.fullmatch(name):
            raise Rejected(f"the file requires the extension {quoted(name)}, which is not understood")


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


class _Scene:
    """The nodes of a document's scene and the meshes they place."""

    def __init__(self, document: Document, accessors: Accessors) -> None:
        self.document, self.accessors = document, accessors

    def placed_meshes(self) -> Iterator[Mesh]:
        """The triangles of every primitive of the scene, in the scene's frame."""
        matrices = dict(self._nodes())
        for at, matrix in matrices.items():
            node = self.document.item("nodes", at, "the scene")
            if not node.has("mesh"):
                continue
            mesh = self.document.named(node, "mesh", "meshes")
            weights = (node if node.has("weights") else mesh).numbers("weights")
            if not mesh.has("primitives"):
                raise damaged(f"{mesh.name} has no primitives")
            for primitive in mesh.parts("primitives", "primitive"):
                part = self._primitive(primitive, weights)
                if node.has("skin") and len(part.faces):
                    skin = self.document.named(node, "skin", "skins")
                    yield skinned(part, primitive.part("attributes"), skin, matrices, self.accessors)
                    continue
                moved = Mesh(part.vertices @ matrix[:3, :3].T + matrix[:3, 3], part.faces)
                yield flipped(moved) if np.linalg.det(matrix[:3, :3]) < 0 else moved

    def _nodes(self) -> Iterator[tuple[int, np.ndarray]]:
        """Numbers of all nodes of the scene with their matrices (4, 4), parents before children."""
        waiting = [(root, np.eye(4), "the scene") for root in reversed(self._roots())]
        visited = set()
        while waiting:
            at, parent, by = waiting.pop()
            if at in visited:
                raise Rejected("the nodes of the scene are not a tree")
            visited.add(at)
            node = self.document.item("nodes", at, by)
            if node.has("extensions") and node.part("extensions").has(INSTANCES):
                raise Rejected(f"a mesh stands in many places by {INSTANCES}, which is not read")
            matrix = parent @ _matrix(node)
            yield at, matrix
            waiting += [(child, matrix, node.name) for child in reversed(node.wholes("children"))]

    def _roots(self) -> list[int]:
        """The nodes at the top of the scene; without scenes those that are nobody's children."""
        if self.document.count("scenes"):
            return self.document.item("scenes", self.document.whole("scene", 0), "the file").wholes("nodes")
        numbers = range(self.document.count("nodes"))
        children = set()
        for number in numbers:
            children.update(self.document.item("nodes", number, "the file").wholes("children"))
        return [number for number in numbers if number not in children]

    def _primitive(self, primitive: Part, weights: np.ndarray) -> Mesh:
        """Its triangles in the mesh's frame. weights: how far each of its morph targets is applied."""
        mode = primitive.whole("mode", TRIANGLES)
        if mode not in (TRIANGLES, STRIP, FAN):  # points and lines have no surface
            return Mesh(np.zeros((0, 3)), np.zeros((0, 3)))
        points = self.accessors.values(primitive.part("attributes"), "POSITION", "VEC3").astype(np.float64)
        for target, weight in zip(primitive.parts("targets", "target"), weights, strict=False):
            if weight and target.has("POSITION"):
                moves = self.accessors.of_vertices(target, "POSITION", "VEC3", len(points), or_zeros=True)
                points += weight * moves
        corners = np.arange(len(points))
        if primitive.has("indices"):
            corners = self.accessors.values(primitive, "indices", "SCALAR").reshape(-1).astype(np.int64)
        if len(corners) and corners.max() >= len(points):
            raise Rejected(f"a face names vertex {corners.max()} of {len(points)}: index out of range")
        return Mesh(points, _triangles(corners, mode))


def _matrix(node: Part) -> np.ndarray:
    """The node's transform (4, 4): a column-major matrix, or translation, rotation (x, y, z, w) and scale."""
    if node.has("matrix"):
        return node.numbers("matrix", 16).reshape(4, 4).T
    matrix = np.eye(4)
    if node.has("rotation"):
        matrix[:3, :3] = _rotation(*node.numbers("rotation", 4))
    if node.has("scale"):
        matrix[:3, :3] *= node.numbers("scale", 3)
    if node.has("translation"):
        matrix[:3, 3] = node.numbers("translation", 3)
    return matrix


def _rotation(x: float, y: float, z: float, w: float) -> np.ndarray:
    """The rotation (3, 3) of a unit quaternion."""
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


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
