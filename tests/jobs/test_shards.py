"""One shape's misfortune is its own; what is finished stays finished."""

import dataclasses
import os
import signal
import threading
from pathlib import Path

import pytest

from pipeline import encoding, files
from pipeline.jobs.shards import Stopped, map_shapes
from pipeline.jobs.work import Limits, Work, read_value
from pipeline.ledger import Ledger, Row, write
from pipeline.store import Damaged, Store

LIMITS = Limits(seconds=20.0, memory_mb=1500)
WORK = Work(
    instance="fake_stage",
    fingerprint="f" * 40,
    settings={"factor": 2},
    random=True,
    seed=0,
    libraries={},
    code="",
    file="settings.json",
    module="tests.jobs.fake_stage",
    function="fake",
    settings_class="FakeSettings",
    format="json",
)


@pytest.fixture
def shard(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)}
    yield Shard(tmp_path)
    for number, handler in before.items():
        signal.signal(number, handler)


class Shard:
    """Shapes with a behaviour each, their input ledger and a store."""

    def __init__(self, folder: Path) -> None:
        self.store, self.timings = Store(folder / "store"), folder / "timings.jsonl"

    def shapes(self, behaviours: dict[str, str], **extra) -> dict:
        rows = {}
        for number, (shape, behaviour) in enumerate(behaviours.items()):
            value = {"behaviour": behaviour, "number": number, **extra}
            content = encoding.encode(_json(value), "json")
            entry = self.store.put("raw", files.digest_of(shape.encode()), content, "json")
            rows[shape] = Row(shape, "ok", entry.key, entry.file, entry.digest, entry.size)
        write(Path("raw.jsonl"), Ledger({"stage": "raw", "settings": "settings/raw.json"}, rows))
        return {shape: {"mesh": (row, "raw.jsonl")} for shape, row in rows.items()}

    def run(self, shapes: dict, work: Work = WORK, limits: Limits = LIMITS, workers: int = 2) -> dict[str, Row]:
        return map_shapes(work, shapes, self.store, limits, workers, self.timings, "fake")

    def computed(self) -> list[str]:
        return [row["shape"] for row in files.read_journal(self.timings)] if self.timings.exists() else []


def _json(value):
    from pipeline.arrays import Product

    return Product(value)


def test_every_misfortune_costs_its_own_shape_only(shard):
    kinds = ["works", "crashes", "exits", "rejects", "errs", "hoards", "works"]
    rows = shard.run(shard.shapes({f"c/{i}{kind}": kind for i, kind in enumerate(kinds)}))
    reasons = {shape.split("/")[1][1:]: row.reason for shape, row in rows.items() if not row.accepted}
    assert sorted(row.shape for row in rows.values() if row.accepted) == ["c/0works", "c/6works"]
    assert "SIGSEGV" in reasons["crashes"]
    assert "exit code 7" in reasons["exits"]
    assert reasons["rejects"] == "it has no surface"
    assert reasons["errs"].startswith("unexpected ValueError: a wrong turn")
    assert "limit of 1500 MB" in reasons["hoards"]
    assert all(row.stage == "fake_stage" for row in rows.values() if not row.accepted)


def test_a_shape_that_never_ends_is_stopped_at_its_limit(shard):
    rows = shard.run(shard.shapes({"c/a": "sleeps", "c/b": "works"}), limits=Limits(2.0, 1500))
    assert "longer than the limit of 2 s" in rows["c/a"].reason
    assert rows["c/b"].accepted


def test_a_worker_killed_from_outside_does_not_reject_its_shape(shard, tmp_path):
    rows = shard.run(shard.shapes({"c/a": "dies once", "c/b": "works"}, mark=str(tmp_path / "mark")))
    assert all(row.accepted for row in rows.values())


def test_a_second_run_computes_nothing_and_gives_the_same_rows(shard):
    shapes = shard.shapes({"c/a": "works", "c/b": "rejects", "c/c": "works"})
    first = shard.run(shapes)
    assert sorted(shard.computed()) == ["c/a", "c/b", "c/c"]
    assert shard.run(shapes) == first
    assert len(shard.computed()) == 3


def test_a_wider_limit_tries_again_what_a_limit_rejected_and_nothing_else(shard):
    shapes = shard.shapes({"c/a": "sleeps", "c/b": "rejects"})
    shard.run(shapes, limits=Limits(1.0, 1500))
    shard.run(shapes, limits=Limits(1.0, 1500))
    assert sorted(shard.computed()) == ["c/a", "c/b"]
    shard.run(shapes, limits=Limits(1.5, 1500))
    assert sorted(shard.computed()) == ["c/a", "c/a", "c/b"]


@pytest.mark.parametrize("workers", [1, 2])
def test_results_do_not_depend_on_workers_or_company(shard, workers):
    shapes = shard.shapes(dict.fromkeys([f"c/{i}" for i in range(6)], "works"))
    together = shard.run(shapes, workers=workers)
    other = dataclasses.replace(WORK, fingerprint="f" * 40)
    shard.store = Store(shard.store.root.with_name("other"), [shard.store.root])
    alone = {shape: shard.run({shape: shapes[shape]}, other)[shape] for shape in shapes}
    assert {s: r.digest for s, r in together.items()} == {s: r.digest for s, r in alone.items()}


def test_seed_settings_and_content_are_in_the_key_and_the_ledger_is_not(shard):
    shapes = shard.shapes({"c/a": "works"})
    keys = {shard.run(shapes)["c/a"].key}
    keys.add(shard.run(shapes, dataclasses.replace(WORK, seed=1))["c/a"].key)
    keys.add(shard.run(shapes, dataclasses.replace(WORK, fingerprint="e" * 40))["c/a"].key)
    assert len(keys) == 3
    moved = {"c/a": {"mesh": (shapes["c/a"]["mesh"][0], "another.jsonl")}}
    assert shard.run(moved)["c/a"].key in keys


def test_a_rejected_input_is_passed_on_with_its_first_reason(shard):
    rows = shard.run(
        {"c/a": {"mesh": (Row("c/a", "rejected", reason="no faces", stage="extract_meshes"), "raw.jsonl")}}
    )
    assert rows["c/a"] == Row("c/a", "rejected", reason="no faces", stage="extract_meshes")
    assert shard.computed() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_finishes_the_shapes_in_flight_and_the_next_run_the_rest(shard, number):
    shapes = shard.shapes(dict.fromkeys([f"c/{i:02d}" for i in range(20)], "naps"))
    threading.Timer(2.5, os.kill, (os.getpid(), number)).start()
    with pytest.raises(Stopped) as stopped:
        shard.run(shapes)
    assert stopped.value.code == 128 + number
    done = len(shard.computed())
    assert 0 < done < 20
    assert len(shard.run(shapes)) == 20
    assert sorted(shard.computed()) == sorted(shapes)


def test_a_damaged_product_is_made_again_and_a_damaged_input_is_made_due(shard):
    shapes = shard.shapes({"c/a": "works"})
    row = shard.run(shapes)["c/a"]
    path = shard.store.root / row.file
    path.write_bytes(path.read_bytes()[:-2] + b"!\n")
    assert shard.run(shapes)["c/a"] == row
    assert files.digest_of(path.read_bytes()) == row.digest
    raw = shapes["c/a"]["mesh"][0]
    (shard.store.root / raw.file).write_bytes(b"damaged")
    with pytest.raises(Damaged, match="type the same snakemake command again: it is made anew"):
        read_value(raw, "raw.jsonl", shard.store)
    assert not (shard.store.root / raw.file).exists()
