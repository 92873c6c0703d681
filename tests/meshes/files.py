"""Mesh files of every format, written here by hand from a mesh, so that the readers are tested against the formats."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.arrays import Mesh, Product
from pipeline.meshes.read import ReadSettings, extract_meshes

CORPUS = Path(__file__).parents[2].parent / "shared" / "meshes"
needs_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"the corpus of real meshes is not at {CORPUS}")


def read(content: bytes | str, name: str = "shape.obj", companions=None, **limits) -> Product:
    content = content.encode() if isinstance(content, str) else content
    return extract_meshes(content, name, companions or {}, ReadSettings(**limits))


def rows(array: np.ndarray, prefix: str = "", number=repr) -> str:
    return "".join(prefix + " ".join(number(x) for x in row) + "\n" for row in array.tolist())


def obj(mesh: Mesh) -> bytes:
    return (rows(mesh.vertices, "v ") + rows(mesh.faces + 1, "f ")).encode()


def off(mesh: Mesh) -> bytes:
    header = f"OFF\n{len(mesh.vertices)} {len(mesh.faces)} 0\n"
    return (header + rows(mesh.vertices) + rows(mesh.faces, "3 ")).encode()


def ply(mesh: Mesh, order: str = "", list_types: str = "uchar int") -> bytes:
    kind = {"": "ascii", "<": "binary_little_endian", ">": "binary_big_endian"}[order]
    header = f"ply\nformat {kind} 1.0\ncomment made by a test\nelement vertex {len(mesh.vertices)}\n"
    header += "".join(f"property double {axis}\n" for axis in "xyz")
    header += f"element face {len(mesh.faces)}\nproperty list {list_types} vertex_indices\nend_header\n"
    if not order:
        return (header + rows(mesh.vertices) + rows(mesh.faces, "3 ")).encode()
    faces = np.zeros(len(mesh.faces), [("n", "u1"), ("corners", order + "i4", 3)])
    faces["n"], faces["corners"] = 3, mesh.faces
    return header.encode() + mesh.vertices.astype(order + "f8").tobytes() + faces.tobytes()


def stl(mesh: Mesh, *, header: bytes = b"") -> bytes:
    facets = np.zeros(len(mesh.faces), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attributes", "<u2")])
    facets["corners"] = mesh.triangles
    return header.ljust(80, b" ") + struct.pack("<I", len(facets)) + facets.tobytes()


def stl_text(mesh: Mesh) -> bytes:
    facet = "facet normal 0 0 0\nouter loop\n{}endloop\nendfacet\n"
    return ("solid part\n" + "".join(facet.format(rows(t, "vertex ")) for t in mesh.triangles) + "endsolid\n").encode()


def gltf_document(mesh: Mesh, nodes: Sequence[dict] = ({"mesh": 0},)) -> tuple[dict, bytes]:
    """The JSON and the buffer of a mesh that the nodes place."""
    points, corners = mesh.vertices.astype("<f4"), mesh.faces.astype("<u2")
    buffer = points.tobytes() + corners.tobytes()
    document = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": list(nodes),
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": len(points), "type": "VEC3"},
            {"bufferView": 1, "componentType": 5123, "count": corners.size, "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteLength": points.nbytes},
            {"buffer": 0, "byteOffset": points.nbytes, "byteLength": corners.nbytes},
        ],
        "buffers": [{"byteLength": len(buffer)}],
    }
    return document, buffer


def bent_gltf(document: dict, buffer: bytes, more: dict[str, tuple[np.ndarray, int, str]]) -> tuple[dict, bytes]:
    """The document with more accessors: attribute name → values, component type, kind. "BIND" goes to the skin."""
    for name, (values, component, kind) in more.items():
        buffer = buffer.ljust(-(-len(buffer) // 4) * 4, b"\0")
        view = {"buffer": 0, "byteOffset": len(buffer), "byteLength": values.nbytes}
        document["bufferViews"].append(view)
        accessor = {"bufferView": len(document["bufferViews"]) - 1, "componentType": component, "type": kind}
        document["accessors"].append(accessor | {"count": len(values)})
        buffer += values.tobytes()
        at = len(document["accessors"]) - 1
        if name == "BIND":
            document["skins"][0]["inverseBindMatrices"] = at
        else:
            document["meshes"][0]["primitives"][0]["attributes"][name] = at
    return document, buffer


def glb(document: dict, buffer: bytes) -> bytes:
    text = json.dumps(document).encode()
    text, buffer = text.ljust(-(-len(text) // 4) * 4), buffer.ljust(-(-len(buffer) // 4) * 4, b"\0")
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(buffer), b"BIN\0") + buffer
    return b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks
