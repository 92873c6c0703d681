"""What the machine lacks, told in one message: memory of a card or the host, or a card that fails."""

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


# What torch reports of a card and its libraries begins so; none of it says anything about a shape.
CARD_TEXTS = (
    "cuda error",
    "cudnn error",
    "cudnn_status",
    "cublas_status",
    "cusolver error",
    "cufft error",
    "nccl error",
)


def out_of_memory(problem: Exception) -> bool:
    return isinstance(problem, MemoryError) or any(text in str(problem).lower() for text in TEXTS)


def card_failed(problem: Exception) -> bool:
    return isinstance(problem, RuntimeError) and any(text in str(problem).lower() for text in CARD_TEXTS)


@contextmanager
def enough_memory(what: str, advice: str) -> Iterator[None]:
    """Ends the job with a message where memory runs out inside, or a card fails.

    what: needs the memory. advice: how it needs less.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as problem:
        if out_of_memory(problem):
            raise SystemExit(f"{what} does not fit into memory: {problem}\n{advice}") from None
        if card_failed(problem):
            raise SystemExit(
                f"the graphics card failed: {problem}\nNothing that was finished is lost, and no shape is blamed. "
                f"The same command tries again; runtime.device: cpu does without the card."
            ) from None
        raise


def extraction_advice(extraction: Mapping[str, Any]) -> str:
    """What to lower where test shapes need too much. extraction: the settings of it that the job goes by."""
    sizes = [f"extraction.{name} (now {extraction[name]})" for name in ("batch_points", "batch_shapes")]
    return f"Lower {' or '.join(sizes)} of the experiment."
