"""Object File Format (Geomview OFF) in the variants that occur: OFF, COFF, NOFF, STOFF and counts on the first line."""

from __future__ import annotations

import re

import numpy as np

from pipeline.arrays import Rejected
from pipeline.geometry.polygons import Polygons
from pipeline.meshes.text import Limits, announced_too_much, floats, integers, shown, split_lines

KEYWORD = re.compile(rb"(?:ST)?C?N?(4?n?)OFF(?![A-Za-z])")
SMALLEST_VERTEX, SMALLEST_FACE = 6, 2  # bytes of "0 0 0\n" and "0\n"


def parse_off(content: bytes, limits: Limits) -> Polygons:
    """The polygons of an OFF text; colours and normals are passed over, comments and blank lines too.

    Raises Rejected where the file holds more or less than its header announces.
    """
    rows = [row for line in split_lines(content) if (row := line.split(b"#", 1)[0].split())]
    vertex_count, face_count, rows = _header(rows)
    if vertex_count * SMALLEST_VERTEX + face_count * SMALLEST_FACE > len(content) + 1:
        raise announced_too_much(vertex_count, face_count, len(content))
    limits.check(vertex_count, face_count)
    if len(rows) != vertex_count + face_count:
        raise Rejected(
            f"the header announces {vertex_count} vertices and {face_count} faces, "
            f"the file holds {min(len(rows), vertex_count)} and {max(len(rows) - vertex_count, 0)}"
        )
    vertices = _coordinates(rows[:vertex_count])
    sizes, corners = _faces(rows[vertex_count:])
    return Polygons(vertices, corners, sizes)


def _header(rows: list[list[bytes]]) -> tuple[int, int, list[list[bytes]]]:
    """Numbers of vertices and faces and the rows behind the header; the keyword may be missing or glued to them."""
    if not rows:
        raise Rejected("the file holds no OFF header")
    first = rows[0]
    keyword = KEYWORD.match(first[0])
    if keyword:
        if keyword[1]:
            raise Rejected(f"{shown(first[0])}: only OFF with three coordinates is read")
        glued = first[0][keyword.end() :]
        first = ([glued] if glued else []) + first[1:]
        rows = [first, *rows[1:]] if first else rows[1:]
    if not rows or len(rows[0]) not in (2, 3):
        raise Rejected("the OFF header has no counts of vertices and faces")
    if rows[0][0].upper() == b"BINARY":
        raise Rejected("binary OFF is not read; save it as text")
    counts = integers(rows[0])
    return int(counts[0]), int(counts[1]), rows[1:]


def _coordinates(rows: list[list[bytes]]) -> np.ndarray:
    short = next((i for i, row in enumerate(rows) if len(row) < 3), None)
    if short is not None:
        raise Rejected(f"vertex {short} has {len(rows[short])} coordinates instead of three; the file was cut off")
    return floats([token for row in rows for token in row[:3]]).reshape(-1, 3)


def _faces(rows: list[list[bytes]]) -> tuple[np.ndarray, np.ndarray]:
    """Corners per face (f,) and the corners of all faces in a row; a colour may follow each face."""
    sizes = integers([row[0] for row in rows])
    room = np.array([len(row) - 1 for row in rows], np.int64)
    wrong = (sizes < 0) | (sizes > room)
    if wrong.any():
        at = int(wrong.argmax())
        raise Rejected(f"face {at} announces {sizes[at]} corners and names {room[at]}; the file is damaged")
    corners = integers([token for row, size in zip(rows, sizes.tolist(), strict=True) for token in row[1 : size + 1]])
    return sizes, corners
