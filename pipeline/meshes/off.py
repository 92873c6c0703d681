"""Object File Format (Geomview OFF): every prefix of its keyword, counts on its line or below, line breaks anywhere."""

from __future__ import annotations

import re
from bisect import bisect_left
from itertools import accumulate, chain, product

import numpy as np

from pipeline.arrays import Rejected
from pipeline.geometry.polygons import Polygons
from pipeline.meshes.text import Limits, announced_too_much, floats, integers, shown, split_lines

KEYWORD = re.compile(rb"((?:ST|C|N|4|n)*)OFF(?![A-Za-z])")
SMALLEST_VERTEX, SMALLEST_FACE = 6, 2  # bytes of "0 0 0\n" and "0\n"
COLOUR = 4  # numbers at most: red, green, blue, opacity
MOST_DIGITS = 18  # of the number of corners of one face
NO_COUNTS = "the OFF header has no counts of vertices and faces"

Rows = list[list[bytes]]


def parse_off(content: bytes, limits: Limits) -> Polygons:
    """The polygons of an OFF text; colours, normals, texture coordinates, comments and blank lines are passed over.

    Where each vertex and face has a line of its own, it may end with colours that the keyword does not announce, and
    faces may have fewer than three corners. Elsewhere numbers are counted as the keyword says, whatever the lines.
    Raises Rejected where the file holds more or less than its header announces.
    """
    rows = [row for line in split_lines(content) if (row := line.split(b"#", 1)[0].split())]
    letters, rows = _without_keyword(rows)
    try:
        return _of_lines(rows, limits, len(content))
    except Rejected:
        polygons = _of_numbers(rows, letters, limits, len(content))
        if polygons is not None:
            return polygons
        if _has_free_lines(rows, letters):
            _refuse_numbers(rows, limits, len(content))
        raise


def _without_keyword(rows: Rows) -> tuple[bytes, Rows]:
    """The letters before OFF, and the rows from the counts on; the keyword may be missing or glued to them."""
    if not rows:
        raise Rejected("the file holds no OFF header")
    word = rows[0][0]
    keyword = KEYWORD.match(word)
    if not keyword:
        return b"", rows
    letters = keyword[1]
    glued = word[keyword.end() :]
    rows = _with_first([glued, *rows[0][1:]] if glued else rows[0][1:], rows)
    if rows and rows[0][0].upper() == b"BINARY":
        raise Rejected("binary OFF is not read; save it as text")
    if b"n" in letters and rows:
        dimension, *others = rows[0]
        rows = _with_first(others, rows)
    else:
        dimension = b"3"
    if b"4" in letters or dimension != b"3":
        raise Rejected(f"{shown(word)}: only OFF with three coordinates is read")
    return letters, rows


def _with_first(first: list[bytes], rows: Rows) -> Rows:
    """The rows with another first one, which is left out where it is empty."""
    return [first, *rows[1:]] if first else rows[1:]


def _of_lines(rows: Rows, limits: Limits, size: int) -> Polygons:
    """The polygons of rows that each hold the counts, a vertex or a face."""
    if not rows or len(rows[0]) > 3:
        raise Rejected(NO_COUNTS)
    vertex_count, face_count = _counts(rows[0], limits, size)
    rows = rows[1:]
    if len(rows) != vertex_count + face_count:
        raise Rejected(
            f"the header announces {vertex_count} vertices and {face_count} faces, "
            f"the file holds {min(len(rows), vertex_count)} and {max(len(rows) - vertex_count, 0)}"
        )
    vertices = _coordinates(rows[:vertex_count])
    sizes, corners = _faces(rows[vertex_count:])
    return Polygons(vertices, corners, sizes)


def _counts(words: list[bytes], limits: Limits, size: int) -> tuple[int, int]:
    """Numbers of vertices and faces, which a file of `size` bytes can hold and the limits allow."""
    if len(words) < 2:
        raise Rejected(NO_COUNTS)
    vertex_count, face_count = integers(words).tolist()[:2]  # that of edges may be missing
    if vertex_count * SMALLEST_VERTEX + face_count * SMALLEST_FACE > size + 1:
        raise announced_too_much(vertex_count, face_count, size)
    limits.check(vertex_count, face_count)
    return vertex_count, face_count


def _coordinates(rows: Rows) -> np.ndarray:
    short = next((i for i, row in enumerate(rows) if len(row) < 3), None)
    if short is not None:
        raise Rejected(f"vertex {short} has {len(rows[short])} coordinates instead of three; the file was cut off")
    return floats([token for row in rows for token in row[:3]]).reshape(-1, 3)


def _faces(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Corners per face (f,) and the corners of all faces in a row; a colour may follow each face."""
    sizes = integers([row[0] for row in rows])
    room = np.array([len(row) - 1 for row in rows], np.int64)
    wrong = (sizes < 0) | (sizes > room)
    if wrong.any():
        at = int(wrong.argmax())
        raise Rejected(f"face {at} announces {sizes[at]} corners and names {room[at]}; the file is damaged")
    corners = integers([token for row, size in zip(rows, sizes.tolist(), strict=True) for token in row[1 : size + 1]])
    return sizes, corners


def _of_numbers(rows: Rows, letters: bytes, limits: Limits, size: int) -> Polygons | None:
    """The polygons of the numbers in a row, or None where no reading uses up all of them.

    Tried are colours of four and three numbers at vertices, and faces without and with colours behind them. The number
    of edges may be missing only where those of vertices and faces have a line of their own.
    """
    words = list(chain.from_iterable(rows))
    line_ends = list(accumulate(map(len, rows)))
    headers = (3, 2) if rows and len(rows[0]) == 2 else (3,)
    for header, width, coloured in product(headers, _widths(letters), (False, True)):
        try:
            vertex_count, face_count = _counts(words[:header], limits, size)
            faces_at = header + vertex_count * width
            sizes, corners = _walked(words, faces_at, face_count, line_ends if coloured else None)
            vertices = [words[at : at + 3] for at in range(header, faces_at, width)]
            return Polygons(_coordinates(vertices), integers(corners), np.array(sizes, np.int64))
        except Rejected:
            continue
    return None


def _widths(letters: bytes) -> tuple[int, ...]:
    """How many numbers a vertex may have: its place, with N its normal, ST its place on a texture, C its colour."""
    width = 3 + 3 * (b"N" in letters) + 2 * (b"ST" in letters)
    return (width + COLOUR, width + COLOUR - 1) if b"C" in letters else (width,)


def _walked(words: list[bytes], at: int, count: int, line_ends: list[int] | None) -> tuple[list[int], list[bytes]]:
    """Sizes and corners of the faces that the words from `at` on spell.

    line_ends: the places behind the last word of each line, where faces begin on a line of their own and what follows
    their corners on a line is their colour. Raises Rejected where the words are not `count` faces of at least three
    corners, or something is left.
    """
    if line_ends and at not in line_ends:
        raise Rejected("the first face does not begin on a line of its own")
    sizes, corners = [], []
    for _ in range(count):
        word = words[at] if at < len(words) else b""
        size = int(word) if word.isdigit() and len(word) < MOST_DIGITS else 0
        end = at + 1 + size
        if size < 3 or end > len(words):
            raise Rejected(f"the numbers end inside face {len(sizes)} or are not those of a face")
        sizes.append(size)
        corners += words[at + 1 : end]
        at = line_ends[bisect_left(line_ends, end)] if line_ends else end
        if at - end > COLOUR:
            raise Rejected(f"face {len(sizes) - 1} is followed by more than a colour")
    if at != len(words):
        raise Rejected(f"{len(words) - at} numbers are left behind the last face")
    return sizes, corners


def _has_free_lines(rows: Rows, letters: bytes) -> bool:
    """Whether the lines, by the first two, are not those of the counts and of one vertex."""
    if len(rows) < 2:
        return bool(rows) and len(rows[0]) > 3
    most = max(_widths(letters)) + COLOUR  # one that is not announced
    return len(rows[0]) not in (2, 3) or not 3 <= len(rows[1]) <= most


def _refuse_numbers(rows: Rows, limits: Limits, size: int) -> None:
    """Raises Rejected with what numbers that do not keep to lines are not."""
    words = list(chain.from_iterable(rows))
    vertex_count, face_count = _counts(words[:3], limits, size)
    raise Rejected(
        f"the header announces {vertex_count} vertices and {face_count} faces, "
        f"which the {len(words)} numbers of the file do not make; it was cut off or is damaged"
    )
