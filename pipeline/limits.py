"""What a limit of one shape can be at all."""

from __future__ import annotations

LEAST_MEMORY_MB = 500
"""Least `limits.memory_mb`, MB. With less, `make_watertight` fails on the demo's smallest shapes where a library is
loaded only then (400 MB), and farther below libraries crash, on any shape. The other stages need up to 400 MB."""
