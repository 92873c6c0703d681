"""Reading one mesh file of unknown origin: OBJ, OFF, PLY, STL, GLB or glTF, recognised by its content.

Nothing in a file is believed before it is checked: announced counts are compared with the bytes there are, indices
with the vertices, and a file that is cut off or contradicts itself is refused as a whole. Materials, textures and
addresses that a file names are never opened.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import PositiveInt

from pipeline.settings import Settings


class ReadSettings(Settings):
    """Limits of what is read."""

    max_bytes: PositiveInt = 250_000_000
    """Largest file, bytes, unpacked; companions of a glTF file count with it."""
    max_vertices: PositiveInt = 10_000_000
    """Most vertices a file may hold or announce."""
    max_faces: PositiveInt = 10_000_000
    """Most faces a file may hold or announce, before and after polygons are cut into triangles."""


import numpy as np

from pipeline.arrays import Mesh, Product, Rejected
from pipeline.geometry.clean import without_degenerate_faces, without_stray_faces, without_unused_vertices
from pipeline.geometry.polygons import Polygons, triangulated, without_repeated_corners
from pipeline.meshes.gltf import parse_gltf
from pipeline.meshes.obj import parse_obj
from pipeline.meshes.off import KEYWORD, parse_off
from pipeline.meshes.ply import parse_ply
from pipeline.meshes.stl import has_size_of_facets, is_binary_stl, parse_stl
from pipeline.meshes.text import Limits

UTF8_MARK = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
OTHER_CONTENT = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"PK\x03\x04", "a zip archive (or 3MF)"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"%PDF", "a PDF"),
    (b"Kaydara FBX", "an FBX file"),
    (b"BLENDER", "a Blender file"),
    (b"<", "XML (COLLADA, X3D or HTML)"),
)
SUFFIXES = {".obj": "obj", ".off": "off", ".ply": "ply", ".stl": "stl", ".glb": "glb", ".gltf": "gltf"}
OFF_START = re.compile(rb"\s*(?:#[^\r\n]*\s+)*" + KEYWORD.pattern)
STL_START = re.compile(rb"\s*solid\b[^\r\n]*\s+(?:facet|end\s*solid)", re.IGNORECASE)
OBJ_LINE = re.compile(rb"(?:^|[\r\n])[ \t]*(?:v[ \t]+[-+.\d]|f[ \t]+-?\d)")
SNIFFED = 1 << 16  # bytes in which a first line of geometry is looked for
DAMAGE = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError)


def extract_meshes(content: bytes, name: str, companions: Mapping[str, bytes], settings: ReadSettings) -> Product:
    """The triangles of a mesh file, in the file's frame and units.

    content: the file's bytes; name: its name, of which only the suffix counts, and only where the content does not
    tell the format; companions: the files beside it by relative name, used for the buffers of a glTF file.

    The product's mesh has finite vertices that are all used, in the file's order, and at least one face with area;
    parts are joined, polygons cut into triangles. Its figures are `format`, `vertices`, `faces` and `repairs` (what
    was dropped, in words; then the status is "repaired"). Raises Rejected for everything that cannot be read whole.
    """
    size = len(content) + sum(map(len, companions.values()))
    if size > settings.max_bytes:
        raise Rejected(f"the file has {size} bytes; the limit is {settings.max_bytes}")
    if not has_size_of_facets(content):
        content = content.removeprefix(UTF8_MARK)
    kind = _format(content, name)
    polygons = _parse(kind, content, companions, Limits(settings.max_vertices, settings.max_faces))
    mesh, repairs = _checked(polygons, settings.max_faces)
    figures = {"format": kind, "vertices": len(mesh.vertices), "faces": len(mesh.faces), "repairs": repairs}
    return Product(mesh, figures, status="repaired" if repairs else "ok")


def _format(content: bytes, name: str) -> str:
    """The format by the content, failing that by the suffix; raises Rejected with what the content is instead."""
    if has_size_of_facets(content):  # its first 80 bytes are free, and may be those of any other format
        return "stl"
    if not content.strip():
        raise Rejected("the file is empty")
    other = next((what for start, what in OTHER_CONTENT if content.startswith(start)), None)
    if other:
        raise Rejected(f"the content is {other}, not a mesh format that is read")
    if content.startswith(UTF16_MARKS):
        raise Rejected("the text is in UTF-16; save it as UTF-8 or ASCII")
    suffix = SUFFIXES.get(name[name.rfind(".") :].lower())
    kind = _content_format(content) or suffix
    if kind is None:
        raise Rejected("the content is none of OBJ, OFF, PLY, STL, GLB and glTF")
    if kind in ("obj", "off", "gltf") and b"\0" in content[:SNIFFED]:
        if suffix == "stl":  # one that was cut off, with a header that begins like another format
            return suffix
        raise Rejected(f"the content is binary, but {kind.upper()} is text")
    return kind


def _content_format(content: bytes) -> str | None:
    head = content[:SNIFFED]
    if head.startswith(b"glTF"):
        return "glb"
    if re.match(rb"ply[\r\n]", head):
        return "ply"
    if is_binary_stl(content) or STL_START.match(head):
        return "stl"
    if OFF_START.match(head):
        return "off"
    if head.lstrip().startswith(b"{") and b'"asset"' in content:
        return "gltf"
    return "obj" if OBJ_LINE.search(head) else None


def _parse(kind: str, content: bytes, companions: Mapping[str, bytes], limits: Limits) -> Polygons:
    parsers = {"obj": parse_obj, "off": parse_off, "ply": parse_ply, "stl": parse_stl}
    try:
        with np.errstate(invalid="ignore", over="ignore"):  # NaN is found later; refused only where a face uses it
            return parsers[kind](content, limits) if kind in parsers else parse_gltf(content, companions, limits)
    except DAMAGE as error:  # what a parser did not foresee is the file's fault, and the shape's alone
        raise Rejected(f"the {kind.upper()} file is damaged: {type(error).__name__}: {error}") from error


def _checked(polygons: Polygons, max_faces: int) -> tuple[Mesh, list[str]]:
    """The mesh of valid polygons, and what had to be dropped."""
    _check_indices(polygons)
    corners = len(polygons.corners)
    polygons = without_repeated_corners(polygons)
    short = int((polygons.sizes < 3).sum())
    if short == len(polygons.sizes):
        raise Rejected(f"the file holds no faces (vertices: {len(polygons.vertices)})")
    triangles = int(np.maximum(polygons.sizes - 2, 0).sum())
    if triangles > max_faces:
        raise Rejected(f"the polygons make {triangles} triangles; the limit is {max_faces}")
    mesh = Mesh(polygons.vertices, triangulated(polygons))
    used = without_unused_vertices(mesh)
    _check_geometry(used)
    near = without_stray_faces(used)
    dropped = (
        ("corners named twice in a row", corners - len(polygons.corners)),
        ("faces of fewer than three corners", short),
        ("vertices that no face uses", len(mesh.vertices) - len(used.vertices)),
        ("faces without area beyond the surface", len(used.faces) - len(near.faces)),
    )
    return without_unused_vertices(near), [f"{what}: {count} dropped" for what, count in dropped if count]


def _check_indices(polygons: Polygons) -> None:
    if len(polygons.vertices) == 0:
        raise Rejected("the file holds no vertices")
    wrong = (polygons.corners < 0) | (polygons.corners >= len(polygons.vertices))
    if wrong.any():
        index = polygons.corners[wrong.argmax()]
        raise Rejected(f"a face names vertex {index} of {len(polygons.vertices)}: index out of range")


def _check_geometry(mesh: Mesh) -> None:
    """Every used vertex finite, and a surface to speak of, judged in the shape's own size."""
    if not np.isfinite(mesh.vertices).all():
        bad = np.count_nonzero(~np.isfinite(mesh.vertices).all(axis=1))
        raise Rejected(f"vertices used by faces with NaN or infinite coordinates: {bad}")
    low, high = mesh.bounds
    extent = (high / 2 - low / 2).max() * 2  # halves: the difference of huge ones would overflow
    if extent == 0:
        raise Rejected("all vertices are at one point: the shape has no extent")
    local = Mesh((mesh.vertices - low) / extent, mesh.faces)
    if len(without_degenerate_faces(local).faces) == 0:
        raise Rejected("every face has zero area (repeated or collinear corners): there is no surface")
