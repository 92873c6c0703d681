"""The JSON of a glTF file, every key checked where it is looked at: what is wrong is told in the format's own words.

Keys are those of section 5 "Properties Reference" of the glTF 2.0 specification (Khronos Group). A key that is null
counts as absent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.arrays import Rejected
from pipeline.meshes.text import quoted

SINGULAR = {
    "accessors": "accessor",
    "buffers": "buffer",
    "bufferViews": "bufferView",
    "meshes": "mesh",
    "nodes": "node",
    "scenes": "scene",
    "skins": "skin",
}
PADDING = b"\0 \t\r\n"  # the format pads with blanks, some programs with NULs
LARGEST = 2**53  # above it JSON's numbers are not whole in every program


def damaged(what: str) -> Rejected:
    """The reason for a document that contradicts the format or itself."""
    return Rejected(f"the glTF is damaged: {what}")


def parse_json(text: bytes) -> Document:
    """The document of a JSON text; NULs behind it are padding. Raises Rejected where it is no JSON object."""
    try:
        values = json.loads(text.rstrip(PADDING))
    except RecursionError:
        raise damaged("its JSON is nested too deeply") from None
    except UnicodeDecodeError:
        raise damaged("its JSON is not UTF-8") from None
    except ValueError as error:
        raise damaged(f"its JSON cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise damaged(f"its JSON is {_described(values)} instead of an object")
    return Document(values, "the file")


@dataclass(frozen=True)
class Part:
    """An object of the document, and its name in words.

    Every look at a key raises Rejected where its value is not what is asked for, or absent and without a default.
    """

    values: dict[str, Any]
    name: str

    def has(self, key: str) -> bool:
        """Whether the object has this key."""
        return self.values.get(key) is not None

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number."""
        return default if default is not None and not self.has(key) else self._whole(key, self._value(key))

    def wholes(self, key: str) -> list[int]:
        """A list of whole numbers, empty where the key is absent."""
        return [self._whole(key, value) for value in self._list(key)]

    def numbers(self, key: str, count: int | None = None) -> np.ndarray:
        """A list of numbers, (n,) float64, empty where the key is absent. count: how many there have to be."""
        values = self._list(key)
        if count is not None and len(values) != count:
            raise damaged(f"{self.name} has a {key} of {len(values)} numbers instead of {count}")
        return np.array([self._number(key, value) for value in values], np.float64)

    def text(self, key: str) -> str:
        """A string."""
        value = self._value(key)
        if not isinstance(value, str):
            raise self._wrong(key, value, "a string")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of strings, empty where the key is absent."""
        values = self._list(key)
        for value in values:
            if not isinstance(value, str):
                raise self._wrong(key, value, "a list of strings")
        return values

    def part(self, key: str) -> Part:
        """An object; it is named as this one is."""
        value = self._value(key)
        if not isinstance(value, dict):
            raise self._wrong(key, value, "an object")
        return Part(value, self.name)

    def parts(self, key: str, name: str) -> list[Part]:
        """A list of objects, each named by `name` and its number; empty where the key is absent."""
        values = self._list(key)
        for value in values:
            if not isinstance(value, dict):
                raise self._wrong(key, value, "a list of objects")
        return [Part(value, f"{name} {number} of {self.name}") for number, value in enumerate(values)]

    def _value(self, key: str) -> Any:
        if not self.has(key):
            raise damaged(f"{self.name} has no {key}")
        return self.values[key]

    def _list(self, key: str) -> list[Any]:
        value = self._value(key) if self.has(key) else []
        if not isinstance(value, list):
            raise self._wrong(key, value, "a list")
        return value

    def _number(self, key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong(key, value, "numbers")
        return _as_float(value)

    def _whole(self, key: str, value: Any) -> int:
        number = self._number(key, value)
        if not number.is_integer() or abs(number) > LARGEST:
            raise self._wrong(key, value, "a whole number")
        return int(number)

    def _wrong(self, key: str, value: Any, wanted: str) -> Rejected:
        return damaged(f"{self.name} has {_described(value)} for {key} where {wanted} should be")


class Document(Part):
    """The whole document."""

    def item(self, kind: str, index: int, by: str) -> Part:
        """The object of a top-level list that something names by its index. by: what names it, in words."""
        items = self._list(kind)
        if not 0 <= index < len(items):
            raise damaged(f"{by} names {SINGULAR[kind]} {index} of {len(items)}")
        if not isinstance(items[index], dict):
            raise damaged(f"{SINGULAR[kind]} {index} is {_described(items[index])} instead of an object")
        return Part(items[index], f"{SINGULAR[kind]} {index}")

    def named(self, part: Part, key: str, kind: str) -> Part:
        """The object of a top-level list that a part names under a key."""
        return self.item(kind, part.whole(key), part.name)

    def count(self, kind: str) -> int:
        """How many objects a top-level list holds."""
        return len(self._list(kind))


def _as_float(value: int | float) -> float:
    """The number, infinite where it is a whole one beyond all floats."""
    try:
        return float(value)
    except OverflowError:
        return np.inf if value > 0 else -np.inf


def _described(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return quoted(value) if isinstance(value, str) else str(value)[:40]
