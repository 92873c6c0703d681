"""Progress of long work: a bar with rate and time left on a terminal, plain lines in a log file."""

from __future__ import annotations

import logging
import re
import sys
import time
from pathlib import Path

LOG = logging.getLogger("isomill")
SECONDS_BETWEEN_LINES = 10.0
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class _Plain(logging.Formatter):
    """Shapes are named by whoever made the files: what would steer a terminal is written out, as in \\x1b."""

    def format(self, record: logging.LogRecord) -> str:
        return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", super().format(record))


class _LogFile(logging.FileHandler):
    """A log file whose disk may be full: then a line is missing there, which is no reason for more words."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def start_log(path: Path | None, level: str = "INFO", append: bool = False) -> None:
    """Send the messages of this process to its log file and to the terminal; the last lines say how it ended.

    append: the file is another process's too, as for the workers of a job.
    """
    LOG.setLevel(level)
    LOG.handlers.clear()
    LOG.propagate = False
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(_Plain("%(message)s"))
    console.setLevel(logging.WARNING if path else logging.INFO)
    LOG.addHandler(console)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not append:
            path.unlink(missing_ok=True)
        handler = _LogFile(path, mode="a", encoding="utf-8")
        handler.setFormatter(_Plain("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        LOG.addHandler(handler)


def log_file() -> Path | None:
    """The log file of this process."""
    return next((Path(h.baseFilename) for h in LOG.handlers if isinstance(h, logging.FileHandler)), None)


def duration(seconds: float) -> str:
    """Seconds as a person writes them: 8s, 3m05s, 2h10m."""
    seconds = int(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


class Progress:
    """Counts work as it is done.

    label: what is going on, e.g. "make_watertight chair/0". unit: one piece of the work. done: pieces that need no
    work any more; they do not count for the rate.
    """

    def __init__(self, label: str, total: int, unit: str = "shapes", done: int = 0) -> None:
        from tqdm import tqdm

        self.label, self.total, self.unit, self.done = label, total, unit, done
        self._skipped, self._start, self._last_line = done, time.monotonic(), 0.0
        self._bar = tqdm(
            total=total, initial=done, desc=label, unit=f" {unit}", file=sys.stderr, disable=not sys.stderr.isatty()
        )

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count `steps` more pieces; `note` is shown beside them."""
        self.done += steps
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(steps)
        if time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES or self.done >= self.total:
            self._last_line = time.monotonic()
            LOG.info(self.line(note))

    def line(self, note: str = "") -> str:
        """The plain line of this moment."""
        elapsed = max(time.monotonic() - self._start, 1e-9)
        rate = (self.done - self._skipped) / elapsed
        left = duration((self.total - self.done) / rate) if rate > 0 else "unknown"
        end = f"{duration(elapsed)} in all" if self.done >= self.total else f"{left} left"
        return "  ".join(
            [self.label, f"{self.done}/{self.total} {self.unit}", f"{rate:.3g} {self.unit}/s", end, note]
        ).rstrip()

    def close(self) -> None:
        self._bar.close()
