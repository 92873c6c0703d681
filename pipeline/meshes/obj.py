"""Wavefront OBJ: vertices and faces. Materials, normals, texture coordinates, lines and curves are passed over."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from pipeline.arrays import Rejected
from pipeline.geometry.polygons import Polygons
from pipeline.meshes.text import Limits, floats, integers, shown, split_lines

AFTER_SLASH = re.compile(rb"/\S*")


def parse_obj(content: bytes, limits: Limits) -> Polygons:
    """The polygons of an OBJ text. Names may be in any 8-bit encoding; no other file is opened.

    Raises Rejected for text that is cut off, numbers that are none and indices that are 0 or out of range.
    """
    vertex_lines, face_lines, seen = _geometry_lines(content)
    limits.check(len(vertex_lines), len(face_lines))
    _check_ending(content, vertex_lines, face_lines)
    vertices = _coordinates(vertex_lines)
    sizes = np.array([len(line.split()) for line in face_lines], np.int64)
    if (sizes == 0).any():
        raise Rejected("a face names no vertices: the file is damaged")
    named = integers(AFTER_SLASH.sub(b"", b" ".join(face_lines)).split())
    if len(named) != sizes.sum():
        raise Rejected("a face has a corner without a vertex index")
    return Polygons(vertices, _zero_based(named, np.repeat(np.array(seen, np.int64), sizes), len(vertices)), sizes)


def _geometry_lines(content: bytes) -> tuple[list[bytes], list[bytes], list[int]]:
    """What follows "v" and "f" on their lines, and for each face the number of vertices above it."""
    vertex_lines, face_lines, seen = [], [], []
    for line in _joined(split_lines(content)):
        keyword = line[:2]
        if keyword in (b"v ", b"v\t"):
            vertex_lines.append(line[2:])
        elif keyword in (b"f ", b"f\t", b"f"):
            face_lines.append(line[2:])
            seen.append(len(vertex_lines))
    return vertex_lines, face_lines, seen


def _joined(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Geometry lines without blanks before them and comments behind them; a backslash continues one on the next."""
    for line in lines:
        line = line.lstrip()
        if line[:1] not in (b"v", b"f"):  # a name may end with a backslash and means nothing by it
            continue
        while line.rstrip().endswith(b"\\"):
            line = line.rstrip()[:-1] + b" " + next(lines, b"")
        yield line.split(b"#", 1)[0].rstrip() if b"#" in line else line.rstrip()


def _check_ending(content: bytes, vertex_lines: list[bytes], face_lines: list[bytes]) -> None:
    """A last line without an end that is too short for what it begins was cut off, and with it perhaps more."""
    last = content[max(content.rfind(b"\n"), content.rfind(b"\r")) + 1 :].strip()
    if last[:2] in (b"f", b"f ", b"f\t") and len(last.split()) < 4:
        raise Rejected(f"the file ends inside a face: {shown(last)}; it was cut off")
    if last[:2] in (b"v", b"v ", b"v\t") and len(last.split()) < 4:
        raise Rejected(f"the file ends inside a vertex: {shown(last)}; it was cut off")


def _coordinates(lines: list[bytes]) -> np.ndarray:
    """The first three numbers of each vertex line, (v, 3); weights and colours behind them are left out."""
    rows = [line.split(None, 3)[:3] for line in lines]
    short = next((row for row in rows if len(row) < 3), None)
    if short is not None:
        raise Rejected(f"a vertex has {len(short)} coordinates instead of three")
    return floats([token for row in rows for token in row]).reshape(-1, 3)


def _zero_based(named: np.ndarray, seen: np.ndarray, count: int) -> np.ndarray:
    """Indices from 0: positive ones count from 1, negative ones back from the vertices above their face."""
    if (named == 0).any():
        raise Rejected("a face names vertex 0; OBJ counts from 1")
    index = np.where(named > 0, named - 1, seen + named)
    wrong = (index < 0) | (index >= count)
    if wrong.any():
        raise Rejected(f"a face names vertex {named[wrong.argmax()]} of {count}: index out of range")
    return index
