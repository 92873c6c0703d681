"""Whether an array fits into what this process may take, asked before it is made."""

from __future__ import annotations

import resource
from pathlib import Path


def require_memory(needed: float, what: str) -> None:
    """Raise MemoryError, saying what needs how much, where `needed` bytes are more than this process may still take.

    Only the process's own limit counts (each worker has one, `limits.memory_mb`); without one nothing is refused.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    left = max(0, limit - mapped)
    if needed > left:
        raise MemoryError(f"{what} needs {needed / 2**20:,.0f} MB, and {left / 2**20:,.0f} MB are left")
