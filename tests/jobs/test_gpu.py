"""Jobs on one machine take different cards."""

import os
import subprocess
import sys

import pytest

from pipeline.jobs import gpu

TAKE = "import sys, time; from pipeline.jobs import gpu; from pathlib import Path; gpu.CARDS = Path('cards'); \
print(*gpu.take_gpus(int(sys.argv[1])), flush=True); sys.stdin.read()"


@pytest.fixture
def two_cards(tmp_path, monkeypatch):
    for name in ("0", "1"):
        (tmp_path / "cards" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpu, "CARDS", tmp_path / "cards")


def take(environment=None, count=1):
    from tests.workflow.runner import ROOT

    process = subprocess.Popen(
        [sys.executable, "-c", TAKE, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": os.getcwd(), **(environment or {})},
    )
    return process, process.stdout.readline().strip()


def test_each_process_takes_a_card_of_its_own_until_it_ends(two_cards):
    (first, a), (second, b), (third, c) = take(), take(), take()
    assert (a, b, c) == ("0", "1", "")
    first.communicate()
    fourth, d = take()
    assert d == "0"
    for process in (second, third, fourth):
        process.communicate()


def test_several_cards_are_taken_together_or_not_at_all(two_cards):
    first, both = take(count=2)
    second, none = take()
    assert (both, none) == ("0 1", "")
    for process in (first, second):
        process.communicate()
    third, one = take()
    fourth, too_few = take(count=2)
    assert (one, too_few) == ("0", "")
    for process in (third, fourth):
        process.communicate()


def test_a_card_that_was_chosen_stays(two_cards):
    process, card = take({"CUDA_VISIBLE_DEVICES": "1"})
    process.communicate()
    assert card == ""


@pytest.mark.parametrize(("value", "count"), [("", 0), ("-1", 0), ("0", 1), ("0,3", 2), (None, 2)])
def test_visible_cards_are_counted_without_torch(two_cards, monkeypatch, value, count):
    if value is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert gpu.visible_gpus() == count
