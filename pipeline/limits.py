"""What a limit of one shape can be at all."""

from __future__ import annotations

LEAST_MEMORY_MB = 500
"""Least `limits.memory_mb`, MB. With less, shells of the demo's smallest shapes fail at a library that cannot be loaded
(400 MB), and farther below the libraries crash, on any shape. The other stages need less."""
