"""STL, binary and text. Every facet brings its own three corners; equal ones are merged, as the format means it."""

from __future__ import annotations

import numpy as np

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry.clean import merged
from pipeline.geometry.polygons import Polygons
from pipeline.meshes.text import Limits, floats, split_lines

HEADER, RECORD = 84, 50  # bytes before the first facet and of each facet
FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attributes", "<u2")])


def parse_stl(content: bytes, limits: Limits) -> Polygons:
    """The facets of an STL file. Raises Rejected where it holds more or fewer than it announces, or is cut off."""
    corners = _text_facets(content) if _is_text(content) else _binary_facets(content)
    limits.check(3 * len(corners), len(corners))
    mesh = merged(Mesh(corners.reshape(-1, 3), np.arange(3 * len(corners)).reshape(-1, 3)))
    return Polygons(mesh.vertices, mesh.faces.reshape(-1).astype(np.int64), np.full(len(mesh.faces), 3, np.int64))


def facets_announced(content: bytes) -> int:
    """What a binary STL says it holds; -1 for content too short to say."""
    return int.from_bytes(content[80:84], "little") if len(content) >= HEADER else -1


def is_binary_stl(content: bytes) -> bool:
    """Whether the size is just that of the number of facets announced; a binary file may begin with "solid" too."""
    return len(content) >= HEADER and len(content) == HEADER + RECORD * facets_announced(content)


def has_size_of_facets(content: bytes) -> bool:
    """Whether the size is that of a binary STL with facets, which files of other formats do not have by chance."""
    return is_binary_stl(content) and facets_announced(content) > 0


def _is_text(content: bytes) -> bool:
    return not is_binary_stl(content) and content.lstrip()[:5].lower() == b"solid" and b"\0" not in content[:HEADER]


def _binary_facets(content: bytes) -> np.ndarray:
    announced = facets_announced(content)
    if announced < 0:
        raise Rejected(f"{len(content)} bytes are too few for a binary STL and it is no text STL")
    held = (len(content) - HEADER) // RECORD
    if held != announced:
        raise Rejected(f"the header announces {announced} facets, the file holds {held}")
    return np.frombuffer(content, FACET, held, HEADER)["corners"].astype(np.float64)


def _keyword(words: list[bytes]) -> bytes:
    """What a line of a text STL is about. Some programs write "end solid" for "endsolid"."""
    first = b"".join(words[:2] if words and words[0].lower() == b"end" else words[:1])
    return first.lower()


def _text_facets(content: bytes) -> np.ndarray:
    """Corners of all facets of all solids, (f, 3, 3)."""
    counts = dict.fromkeys((b"solid", b"endsolid", b"facet", b"endfacet"), 0)
    coordinates: list[bytes] = []
    for line in split_lines(content):
        words = line.split()
        keyword = _keyword(words)
        if keyword == b"vertex":
            if len(words) != 4:
                raise Rejected(f"a vertex has {len(words) - 1} coordinates instead of three")
            coordinates += words[1:]
        elif keyword in counts:
            counts[keyword] += 1
    if counts[b"solid"] != counts[b"endsolid"] or counts[b"facet"] != counts[b"endfacet"]:
        raise Rejected("a solid or facet is not ended; the file was cut off")
    if len(coordinates) != 9 * counts[b"facet"]:
        raise Rejected(f"{counts[b'facet']} facets have {len(coordinates) // 3} vertices instead of three each")
    return floats(coordinates).reshape(-1, 3, 3)
