"""Jobs run in a folder of their own, and what they change of the process is given back."""

from __future__ import annotations

import signal

import pytest
import torch

from pipeline.progress import LOG

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


@pytest.fixture
def own_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.jobs.gpu.CARDS", tmp_path / "no cards")
    handlers, threads = {number: signal.getsignal(number) for number in SIGNALS}, torch.get_num_threads()
    before = LOG.propagate, LOG.level
    LOG.propagate = True
    yield
    LOG.propagate, LOG.level = before
    torch.set_num_threads(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)
