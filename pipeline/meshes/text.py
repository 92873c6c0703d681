"""What the readers of untrusted mesh files share: lines, numbers, and counts checked before they are believed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.arrays import Rejected


@dataclass(frozen=True)
class Limits:
    """The most vertices and faces a file may hold or announce."""

    vertices: int
    faces: int

    def check(self, vertices: int, faces: int) -> None:
        """Raises Rejected where a count is negative or above its limit."""
        for count, most, what in ((vertices, self.vertices, "vertices"), (faces, self.faces, "faces")):
            if count < 0:
                raise Rejected(f"the file announces {count} {what}")
            if count > most:
                raise Rejected(f"the file announces {count} {what}; the limit is {most}")


def split_lines(content: bytes) -> Iterator[bytes]:
    """Lines without their ends, whether LF, CRLF or CR."""
    return iter(content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"))


def floats(tokens: list[bytes]) -> np.ndarray:
    """The numbers the tokens spell, (n,) float64; nan and inf are numbers here. Raises Rejected for anything else."""
    return _parsed(tokens, float, "number")


def integers(tokens: list[bytes]) -> np.ndarray:
    """The whole numbers the tokens spell, (n,) int64. Raises Rejected for anything else."""
    return _parsed(tokens, int, "index or count")


def _parsed(tokens: list[bytes], parse: type, what: str) -> np.ndarray:
    try:
        if b"_" in b"".join(tokens):  # as in 1_000, which Python reads and no mesh format knows
            raise ValueError
        return np.fromiter(map(parse, tokens), parse, len(tokens))
    except (ValueError, OverflowError):
        token = next(token for token in tokens if b"_" in token or not _spells(token, parse))
        hint = " (a decimal comma?)" if b"," in token else ""
        raise Rejected(f"{shown(token)} is not a valid {what}{hint}") from None


def _spells(token: bytes, parse: type) -> bool:
    try:
        np.fromiter([parse(token)], parse)
    except (ValueError, OverflowError):
        return False
    return True


def shown(text: bytes) -> str:
    """A short, printable quotation of bytes from a file."""
    return repr(text[:40].decode("latin-1"))


def quoted(text: str) -> str:
    """A printable quotation of a string from a file; long enough for most names of files."""
    return repr(text[:120])


def announced_too_much(vertices: int, faces: int, size: int) -> Rejected:
    """The reason for a header whose counts cannot be true."""
    return Rejected(f"the header announces {vertices} vertices and {faces} faces, more than {size} bytes can hold")
