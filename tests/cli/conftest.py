from __future__ import annotations

import pytest

from pipeline.progress import LOG


@pytest.fixture(autouse=True)
def quiet():
    """Commands log to the terminal of the moment; later tests must not."""
    before = LOG.handlers[:], LOG.propagate, LOG.level
    yield
    LOG.handlers[:], LOG.propagate = before[:2]
    LOG.setLevel(before[2])
