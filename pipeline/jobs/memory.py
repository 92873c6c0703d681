"""Memory that runs out, on a card or the host, told in one message with the settings that take less of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

# torch has a class of its own for a card's memory, and only a message for the host's and for the libraries on a card.
# The other libraries say it in as many ways, and the loader of shared libraries in one of its own.
TEXTS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "status_alloc_failed",
    "bad_alloc",
    "failed to map segment",
    "resource temporarily unavailable",
    "can't start new thread",
)


def out_of_memory(problem: Exception) -> bool:
    return isinstance(problem, MemoryError) or any(text in str(problem).lower() for text in TEXTS)


@contextmanager
def enough_memory(what: str, advice: str) -> Iterator[None]:
    """Ends the job with a message where memory runs out inside. what: needs the memory. advice: how it needs less."""
    try:
        yield
    except (MemoryError, RuntimeError) as problem:
        if not out_of_memory(problem):
            raise
        raise SystemExit(f"{what} does not fit into memory: {problem}\n{advice}") from None


def extraction_advice(extraction: Mapping[str, Any]) -> str:
    """What to lower where test shapes need too much. extraction: the settings of it that the job goes by."""
    sizes = [f"extraction.{name} (now {extraction[name]})" for name in ("batch_points", "batch_shapes")]
    return f"Lower {' or '.join(sizes)} of the experiment."
