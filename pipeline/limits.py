"""What a limit of one shape can be at all."""

from __future__ import annotations

LEAST_MEMORY_MB = 500
"""Least `limits.memory_mb`, MB: below it the libraries themselves fail, some of them by a crash, on any shape."""
