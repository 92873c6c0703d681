"""One shape's misfortune is its own; what is finished stays finished."""

import dataclasses
import errno
import os
import signal
from pathlib import Path

import pytest

from pipeline import encoding, files
from pipeline.arrays import Product
from pipeline.jobs import workers
from pipeline.jobs.machine import Memory
from pipeline.jobs.shards import Stopped, map_shapes
from pipeline.jobs.work import Limits, Work, read_value
from pipeline.ledger import Ledger, Row, write
from pipeline.progress import LOG
from pipeline.store import Damaged, Store

LIMITS = Limits(seconds=20.0, memory_mb=1500)
AMPLE = Memory(8000, "all there is")
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
    monkeypatch.setattr(LOG, "propagate", True)
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

    def run(
        self,
        shapes: dict,
        work: Work = WORK,
        limits: Limits = LIMITS,
        workers: int = 2,
        memory: Memory = AMPLE,
    ) -> dict[str, Row]:
        return map_shapes(work, shapes, self.store, limits, workers, self.timings, "fake", memory)

    def rejections(self) -> int:
        """Those that the store keeps."""
        return sum(entry.extension == "rejected" for entry in self.store.list("fake_stage"))

    def computed(self) -> list[str]:
        return [row["shape"] for row in files.read_journal(self.timings)] if self.timings.exists() else []


def _json(value):
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
    assert {shape: row.limit for shape, row in rows.items() if row.limit} == {"c/5hoards": {"memory_mb": 1500}}
    assert shard.rejections() == 4


@pytest.mark.parametrize(
    ("behaviour", "how"), [("spins", "0.5 s of CPU time"), ("sleeps", "0.5 s without using CPU time")]
)
def test_a_shape_that_never_ends_is_stopped_at_its_limit(shard, behaviour, how):
    rows = shard.run(shard.shapes({"c/a": behaviour, "c/b": "works"}), limits=Limits(0.5, 1500))
    assert rows["c/a"].reason == f"took longer than the limit of {how} (limits.seconds)"
    assert rows["c/a"].limit == {"seconds": 0.5}
    assert rows["c/b"].accepted
    assert shard.rejections() == 0


def test_what_a_limit_rejects_is_tried_again_and_nothing_else(shard):
    shapes = shard.shapes({"c/a": "spins", "c/b": "rejects"})
    first = shard.run(shapes, limits=Limits(0.5, 1500))
    shapes_b = {"c/b": shapes["c/b"]}
    assert shard.run(shapes, limits=Limits(0.5, 1500)) == first
    assert shard.run(shapes_b) == {"c/b": first["c/b"]}
    assert sorted(shard.computed()) == ["c/a", "c/a", "c/b"]


def test_a_rejection_for_a_limit_in_an_older_store_is_none(shard):
    shapes = shard.shapes({"c/a": "works"})
    key = shard.run(shapes)["c/a"].key
    (entry,) = shard.store.list("fake_stage")
    shard.store.discard(entry)
    old = Product({"reason": "took too long"}, {"reason": "took too long", "limits": [180.0, 4000]}, "rejected")
    shard.store.put("fake_stage", key, encoding.encode(old, "json"), "rejected")
    assert shard.run(shapes)["c/a"].accepted
    assert shard.rejections() == 0


@pytest.mark.parametrize("behaviour", ["dies once", "ends who starts workers"])
def test_a_worker_killed_from_outside_does_not_reject_its_shape(shard, tmp_path, behaviour):
    rows = shard.run(shard.shapes({"c/a": behaviour, "c/b": "works"}, mark=str(tmp_path / "mark")))
    assert all(row.accepted for row in rows.values())


def test_a_shape_whose_worker_is_always_killed_fails_the_job_in_words_and_the_others_are_kept(shard):
    shapes = shard.shapes({"c/a": "is killed", "c/b": "works", "c/c": "works", "c/d": "rejects"})
    with pytest.raises(SystemExit) as end:
        shard.run(shapes, workers=2)
    words = str(end.value)
    assert words.startswith("c/a: its worker was killed from outside (SIGKILL) when it held ")
    assert "limits.memory_mb = 1500" in words and "This job has 8,000 MB, all there is." in words
    assert "3 shapes are done and kept" in words
    assert sorted(shard.computed()) == ["c/b", "c/c", "c/d"]
    assert not shard.store.have("fake_stage", WORK.key("c/a", {"mesh": shapes["c/a"]["mesh"][0].digest}))


def test_memory_that_the_machine_has_not_got_fails_the_job_and_rejects_nothing(shard):
    shapes = shard.shapes({"c/a": "hoards", "c/b": "works"})
    with pytest.raises(SystemExit, match=r"c/a: needs more memory than the machine gave it, below limits\.memory_mb"):
        shard.run(shapes, memory=Memory(600, "a small machine"))
    assert shard.computed() == ["c/b"] and shard.rejections() == 0


def test_a_shape_that_is_too_large_beside_others_has_its_whole_limit_alone(shard, caplog):
    shapes = shard.shapes({"c/a": "fills", "c/b": "works"}, bytes=2500 * 2**20)
    with caplog.at_level("WARNING", "isomill"):
        rows = shard.run(shapes, limits=Limits(20.0, 4000), memory=Memory(4000, "all there is"))
    assert all(row.accepted for row in rows.values())
    assert "c/a: needs more than the limit" in caplog.text


@pytest.mark.parametrize(("memory", "accepted"), [(8000, True), (1000, False)])
def test_a_crash_for_want_of_memory_is_no_property_of_the_shape(shard, memory, accepted):
    shapes = shard.shapes({"c/a": "aborts for want of memory"}, bytes=1500 * 2**20)
    row = shard.run(shapes, limits=Limits(20.0, 1000), memory=Memory(memory, "all there is"))["c/a"]
    assert row.accepted == accepted
    assert row.limit == ({} if accepted else {"memory_mb": 1000})
    assert shard.rejections() == 0


def test_neither_a_stopped_worker_nor_a_clock_that_jumps_rejects_a_shape(shard, tmp_path, monkeypatch):
    """Every look at the clock finds it a thousand seconds on; after ten looks the worker may go on."""
    mark, looks, real = tmp_path / "mark", [], workers.monotonic

    def jumping() -> float:
        looks.append(mark.exists())
        if sum(looks) == 10:
            os.kill(int(mark.read_text()), signal.SIGCONT)
        return real() + 1000.0 * len(looks)

    monkeypatch.setattr(workers, "monotonic", jumping)
    rows = shard.run(shard.shapes({"c/a": "is stopped"}, mark=str(mark)), limits=Limits(3.0, 1500))
    assert rows["c/a"].accepted and shard.computed() == ["c/a"]


def test_a_full_disk_in_a_worker_ends_the_job_with_the_error_itself(shard):
    with pytest.raises(OSError, match="No space left") as end:
        shard.run(shard.shapes({"c/a": "finds the disk full"}))
    assert end.value.errno == errno.ENOSPC
    assert shard.rejections() == 0


def test_a_second_run_computes_nothing_and_gives_the_same_rows(shard):
    shapes = shard.shapes({"c/a": "works", "c/b": "rejects", "c/c": "works"})
    first = shard.run(shapes)
    assert sorted(shard.computed()) == ["c/a", "c/b", "c/c"]
    assert shard.run(shapes) == first
    assert len(shard.computed()) == 3


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
def test_a_signal_finishes_the_shapes_in_flight_and_the_next_run_the_rest(shard, number, monkeypatch):
    shapes = shard.shapes(dict.fromkeys([f"c/{i}" for i in range(8)], "naps"))
    append = files.append_line

    def signalling(path: Path, value: dict) -> None:
        append(path, value)
        os.kill(os.getpid(), number)

    with monkeypatch.context() as patch, pytest.raises(Stopped) as stopped:
        patch.setattr(files, "append_line", signalling)
        shard.run(shapes)
    assert stopped.value.code == 128 + number
    assert 0 < len(shard.computed()) <= 4
    assert len(shard.run(shapes)) == 8
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
