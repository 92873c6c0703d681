"""Which held-out shapes a training is validated with: as many of each category as of the others.

Without torch, since the key of a training names these shapes before anything is trained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pipeline.seeds import stream_seed

STREAM = "validation"


def even_subset(names: Sequence[str], count: int | Literal["all"], seed: int) -> list[int]:
    """Places of `count` of the shapes ("category/id"), ascending; all of them where there are no more.

    The categories take turns, each giving its next shape in an order that hashes seed and name, so no category decides
    alone which weights are the best, and a shape that joins a category or leaves it changes the choice by one at most.
    """
    if count == "all" or count >= len(names):
        return list(range(len(names)))
    by_category: dict[str, list[int]] = {}
    for place in sorted(range(len(names)), key=lambda place: stream_seed(seed, STREAM, names[place])):
        by_category.setdefault(category_of(names[place]), []).append(place)
    turns = [
        (turn, stream_seed(seed, STREAM, category), place)
        for category, places in by_category.items()
        for turn, place in enumerate(places)
    ]
    return sorted(place for _, _, place in sorted(turns)[:count])


def category_of(name: str) -> str:
    """ "chair/a" → "chair"; empty for a name without one."""
    category, slash, _ = name.partition("/")
    return category if slash else ""


def count_categories(names: Sequence[str]) -> dict[str, int]:
    """Category → number of its shapes, sorted."""
    return dict(sorted(Counter(category_of(name) for name in names).items()))
