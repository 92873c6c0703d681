"""Files that were reported as read wrongly, beside the repository; where they are absent, tests of them are skipped."""

from pathlib import Path

import pytest

REPORTED = Path(__file__).parents[2].parent / "shared" / "reported"


def reported(name: str) -> bytes:
    """The content of a reported file."""
    return reported_path(name).read_bytes()


def reported_path(name: str) -> Path:
    """The place of a reported file or folder."""
    if not (REPORTED / name).exists():
        pytest.skip(f"the reported file {name} is not in {REPORTED}")
    return REPORTED / name
