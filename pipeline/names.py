"""Names that people read as one: a letter and its accent may be one character or two.

macOS writes file names decomposed (NFD), most other systems composed (NFC); Unicode calls the two equal.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import TypeVar

Value = TypeVar("Value")


def composed(name: str) -> str:
    """The name in normalisation form C, in which equal names are equal strings."""
    return unicodedata.normalize("NFC", name)


def same_name(wanted: str, names: Iterable[str]) -> str | None:
    """Which of the names is the wanted one, itself before one that is written otherwise; None where none is."""
    alike = [name for name in names if composed(name) == composed(wanted)]
    return wanted if wanted in alike else next(iter(alike), None)


def by_name(values: Mapping[str, Value], wanted: str) -> Value | None:
    """The value under the wanted name as `same_name` finds it, or None."""
    if wanted in values:
        return values[wanted]
    name = same_name(wanted, values)
    return None if name is None else values[name]
