"""PLY, text and binary of either byte order: the elements "vertex" and "face"; all others are passed over."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from pipeline.arrays import Rejected
from pipeline.geometry.polygons import Polygons
from pipeline.meshes.text import Limits, announced_too_much, floats, shown

TYPES = {
    "char": "i1",
    "uchar": "u1",
    "short": "i2",
    "ushort": "u2",
    "int": "i4",
    "uint": "u4",
    "int8": "i1",
    "uint8": "u1",
    "int16": "i2",
    "uint16": "u2",
    "int32": "i4",
    "uint32": "u4",
    "float": "f4",
    "double": "f8",
    "float32": "f4",
    "float64": "f8",
}
FORMATS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
END, OLD_MAC_END = re.compile(rb"[\r\n]end_header\r?\n"), re.compile(rb"\rend_header\r")  # data may begin with LF
CORNER_LISTS = ("vertex_indices", "vertex_index")


@dataclass(frozen=True)
class Property:
    """One column: its name, numpy type, and for a list the numpy type of its length."""

    name: str
    kind: str
    length_kind: str | None = None

    @property
    def smallest(self) -> int:
        """Bytes it takes at least in a binary file."""
        return int((self.length_kind or self.kind)[1])


@dataclass(frozen=True)
class Element:
    """A table of the file: `count` rows of these columns."""

    name: str
    count: int
    properties: tuple[Property, ...]


@dataclass(frozen=True)
class Column:
    """The values of one property: scalars (n,), or for a list all items in a row with the sizes (n,)."""

    values: np.ndarray
    sizes: np.ndarray | None = None


def parse_ply(content: bytes, limits: Limits) -> Polygons:
    """The polygons of a PLY file. Raises Rejected for a header that is damaged or announces more than there is."""
    order, elements, start = _header(content)
    counts = {element.name: element.count for element in elements}
    _check_size(elements, len(content) - start, binary=bool(order))
    limits.check(counts.get("vertex", 0), counts.get("face", 0))
    if counts.get("tristrips") and not counts.get("face"):
        raise Rejected("the faces are written as triangle strips, which are not read; save them as a list of faces")
    body = _BinaryBody(content, start, order) if order else _TextBody(content[start:])
    tables = {element.name: body.read(element) for element in elements}
    return Polygons(_coordinates(tables.get("vertex", {})), *_faces(tables.get("face", {})))


def _header(content: bytes) -> tuple[str, list[Element], int]:
    """The byte order ("" for text), the elements, and where the data begin."""
    end = (OLD_MAC_END if content[3:5] != b"\r\n" and content[3:4] == b"\r" else END).search(content)
    if end is None:
        raise Rejected("the PLY header has no end_header")
    lines = [line.decode("latin-1").split() for line in content[3 : end.start()].splitlines()]
    order, elements = None, []
    for words in lines:
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "format" and len(words) == 3 and words[1] in FORMATS:
            order = FORMATS[words[1]]
        elif words[0] == "element" and len(words) == 3 and words[2].isdecimal() and len(words[2]) < 19:
            elements.append(Element(words[1], int(words[2]), ()))
        elif words[0] == "property" and elements:
            last = elements[-1]
            elements[-1] = Element(last.name, last.count, (*last.properties, _property(words)))
        else:
            raise Rejected(f"the PLY header has a line that is not understood: {shown(' '.join(words).encode())}")
    if order is None:
        raise Rejected("the PLY header does not name a known format")
    return order, elements, end.end()


def _property(words: list[str]) -> Property:
    if len(words) == 3 and words[1] in TYPES:
        return Property(words[2], TYPES[words[1]])
    if len(words) == 5 and words[1] == "list" and words[2] in TYPES and words[3] in TYPES:
        return Property(words[4], TYPES[words[3]], TYPES[words[2]])
    raise Rejected(f"the PLY header has a property that is not understood: {shown(' '.join(words).encode())}")


def _check_size(elements: list[Element], size: int, *, binary: bool) -> None:
    """Announced rows must fit in the bytes that follow, before anything is made for them."""
    least = [sum(p.smallest if binary else 2 for p in element.properties) for element in elements]
    if sum(element.count * each for element, each in zip(elements, least, strict=True)) > size + 1:
        counts = {element.name: element.count for element in elements}
        raise announced_too_much(counts.get("vertex", 0), counts.get("face", 0), size)


class _BinaryBody:
    """Tables read one after another from the bytes behind the header."""

    def __init__(self, content: bytes, start: int, order: str) -> None:
        self.content, self.at, self.order = content, start, order

    def read(self, element: Element) -> dict[str, Column]:
        """The columns of the next table. Rows of equal lists are read at once, others one by one."""
        if element.count == 0 or not element.properties:
            return {}
        table = self._equal_rows(element)
        if table is not None:
            return table
        return _collected(element, [self._row(element) for _ in range(element.count)])

    def _equal_rows(self, element: Element) -> dict[str, Column] | None:
        """The table, if all rows have lists as long as the first row's."""
        start = self.at
        first = self._row(element)
        self.at = start
        fields: list[tuple] = []
        for i, (p, items) in enumerate(zip(element.properties, first, strict=True)):
            if p.length_kind:
                fields.append((f"length{i}", self.order + p.length_kind))
            fields.append((f"value{i}", self.order + p.kind, (len(items),) if p.length_kind else ()))
        dtype = np.dtype(fields)
        if start + dtype.itemsize * element.count > len(self.content):
            return None
        rows = np.frombuffer(self.content, dtype, element.count, start)
        columns = {}
        for i, (p, items) in enumerate(zip(element.properties, first, strict=True)):
            if p.length_kind and (rows[f"length{i}"] != len(items)).any():
                return None
            sizes = np.full(element.count, len(items), np.int64) if p.length_kind else None
            columns[p.name] = Column(rows[f"value{i}"].reshape(-1), sizes)
        self.at = start + dtype.itemsize * element.count
        return columns

    def _row(self, element: Element) -> list[np.ndarray]:
        return [self._take(p.kind, self._length(p)) for p in element.properties]

    def _length(self, column: Property) -> int:
        return _count(self._take(column.length_kind, 1)[0]) if column.length_kind else 1

    def _take(self, kind: str, count: int) -> np.ndarray:
        end = self.at + int(kind[1]) * count
        if count < 0 or end > len(self.content):
            raise Rejected("the data end inside a row that the header announces; the file was cut off")
        values = np.frombuffer(self.content, self.order + kind, count, self.at)
        self.at = end
        return values


class _TextBody:
    """Tables read one after another from the words behind the header."""

    def __init__(self, text: bytes) -> None:
        self.words, self.at = text.split(), 0

    def read(self, element: Element) -> dict[str, Column]:
        """The columns of the next table. One list of equal sizes is read at once, other lists row by row."""
        if any(p.length_kind for p in element.properties):
            table = self._equal_lists(element) if len(element.properties) == 1 else None
            return table or _collected(element, [self._row(element) for _ in range(element.count)])
        width = len(element.properties)
        table = self._take(element.count * width).reshape(element.count, width)
        return {p.name: Column(table[:, i]) for i, p in enumerate(element.properties)}

    def _equal_lists(self, element: Element) -> dict[str, Column] | None:
        length = self.words[self.at : self.at + 1]
        width = 1 + int(length[0]) if length and length[0].isdigit() else 0
        end = self.at + element.count * width
        if width == 0 or end > len(self.words) or set(self.words[self.at : end : width]) != set(length):
            return None
        table = self._take(element.count * width).reshape(element.count, width)
        return {element.properties[0].name: Column(table[:, 1:].reshape(-1), np.full(element.count, width - 1))}

    def _row(self, element: Element) -> list[np.ndarray]:
        return [self._take(_count(self._take(1)[0]) if p.length_kind else 1) for p in element.properties]

    def _take(self, count: int) -> np.ndarray:
        if count < 0 or self.at + count > len(self.words):
            raise Rejected("the data end inside a row that the header announces; the file was cut off")
        self.at += count
        return floats(self.words[self.at - count : self.at])


def _count(length: float) -> int:
    """How many items a list says it has."""
    if not float(length).is_integer() or length < 0:
        raise Rejected(f"a list has {length} items, which is no count")
    return int(length)


def _collected(element: Element, rows: list[list[np.ndarray]]) -> dict[str, Column]:
    columns = {}
    for i, p in enumerate(element.properties):
        items = [row[i] for row in rows]
        values = np.concatenate(items) if items else np.zeros(0)
        columns[p.name] = Column(values, np.array([len(item) for item in items], np.int64) if p.length_kind else None)
    return columns


def _coordinates(table: dict[str, Column]) -> np.ndarray:
    if not table:
        return np.zeros((0, 3))
    missing = [axis for axis in "xyz" if axis not in table or table[axis].sizes is not None]
    if missing:
        raise Rejected(f"the vertices have no coordinate {missing[0]}")
    return np.stack([table[axis].values.astype(np.float64) for axis in "xyz"], axis=1)


def _faces(table: dict[str, Column]) -> tuple[np.ndarray, np.ndarray]:
    """Corners of all faces in a row, and corners per face."""
    if not table:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    column = next((table[name] for name in CORNER_LISTS if name in table), None)
    if column is None or column.sizes is None:
        raise Rejected("the faces have no list of vertex indices")
    corners = column.values.astype(np.int64)
    if (corners != column.values).any():
        raise Rejected("a face names a vertex by a number that is not whole")
    return corners, column.sizes
