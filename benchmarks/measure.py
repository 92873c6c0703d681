"""What a command costs in a fresh process, and the tables the benchmarks print."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """seconds: wall. cpu_seconds: user and system, of the process and all it waited for. peak_mb: resident memory of
    its largest process, MB (10^6 bytes)."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


def run_command(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> tuple[Cost, str]:
    """Run a command to its end; what it cost and what it printed. Raises RuntimeError where it fails."""
    output = folder / "command.out"
    with open(output, "wb") as stream:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **(environment or {})}, stdout=stream, stderr=stream
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    text = output.read_text(encoding="utf-8", errors="replace")
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{text[-3000:]}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6), text


def smallest(measure: Callable[[], Cost], times: int = 2) -> Cost:
    """The smallest of each number over several runs: what others do on the machine only ever adds."""
    costs = [measure() for _ in range(times)]
    return Cost(*(min(getattr(cost, name) for cost in costs) for name in Cost.__dataclass_fields__))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligned columns: numbers to the right, words to the left."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    right = [all(isinstance(row[k], int | float | None) for row in rows) for k in range(len(header))]

    def line(values: Sequence[str]) -> str:
        padded = (v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, cells)])


def _cell(value: object) -> str:
    """None is a gap; floats get three significant digits, and no exponent."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 1e-3 else f"{value:.1g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
