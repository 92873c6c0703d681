"""The store serves what its names promise, or says so."""

import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline import encoding, files, ledger
from pipeline.arrays import Mesh, Product
from pipeline.ledger import Ledger, Row
from pipeline.store import Damaged, Entry, Store
from tests import solids

KEY = "ab" * 20


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_what_was_put_is_got_back_by_key(store):
    entry = store.put("sample_surface", KEY, b"points", "safetensors")
    assert store.have("sample_surface", KEY) == entry
    assert store.get(entry.file) == b"points"
    assert (entry.stage, entry.key, entry.extension) == ("sample_surface", KEY, "safetensors")
    assert Store(store.root).have("sample_surface", KEY) == entry


def test_an_unknown_key_is_not_there(store):
    assert store.have("sample_surface", KEY) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!"),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["one byte short", "empty", "one byte flipped", "gone", "a folder"],
)
def test_a_damaged_file_is_never_served(store, damage):
    entry = store.put("sample_surface", KEY, b"a hundred thousand points", "safetensors")
    damage(store.root / entry.file)
    with pytest.raises(Damaged, match=entry.file):
        store.get(entry.file)


def test_files_under_each_others_names_are_found_out(store):
    one, two = (store.put("sample_surface", key, key.encode(), "off") for key in (KEY, "cd" * 20))
    os.replace(store.root / one.file, store.root / two.file)
    with pytest.raises(Damaged):
        store.get(two.file)


def test_shared_stores_are_read_and_not_written(tmp_path):
    shared = Store(tmp_path / "shared")
    entry = shared.put("voxelize", KEY, b"grid", "safetensors")
    before = sorted(p for p in shared.root.rglob("*"))
    own = Store(tmp_path / "own", [shared.root])
    assert own.get(own.have("voxelize", KEY).file) == b"grid"
    own.put("voxelize", "cd" * 20, b"new", "safetensors")
    assert sorted(p for p in shared.root.rglob("*")) == before
    assert entry.file not in {e.file for e in own.list()}


def test_a_discarded_entry_is_gone(store):
    entry = store.put("voxelize", KEY, b"grid", "safetensors")
    store.discard(entry)
    assert store.have("voxelize", KEY) is None
    assert list(store.list()) == []


def _put_many(root: Path, worker: int) -> None:
    store = Store(root)
    for i in range(50):
        store.put("sample_surface", f"{i:040x}", f"content {i}".encode() * 100, "off")


def test_two_processes_write_the_same_store_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_put_many, args=(tmp_path, w)) for w in range(2)]
    [w.start() for w in workers]
    [w.join() for w in workers]
    store = Store(tmp_path)
    assert len(list(store.list())) == 50
    assert all(store.get(e.file) for e in store.list())
    assert not list((tmp_path / ".tmp").iterdir())


def test_leftovers_of_the_dead_are_swept_and_those_of_the_living_stay(store):
    store.put("voxelize", KEY, b"grid", "safetensors")
    scratch = store.root / ".tmp"
    alive = files.temporary_name(scratch)
    dead = scratch / alive.name.replace(f"-{os.getpid()}-", "-99999999-")
    for path in (alive, dead):
        path.write_bytes(b"half")
    store.sweep()
    assert alive.exists() and not dead.exists()


def test_a_failed_write_leaves_the_old_file_and_no_debris(tmp_path, monkeypatch):
    path = tmp_path / "ledger.jsonl"
    files.write_atomic(path, "old")
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        files.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["ledger.jsonl"]


def products() -> dict[str, Product]:
    mesh = solids.three_boxes()
    rounded = Mesh(mesh.vertices.astype(np.float32), mesh.faces)
    bits = np.array([True, False, True])
    return {
        "mesh": Product(Mesh(mesh.vertices * 1e30 + 1e20, mesh.faces), {"faces": 36}, status="repaired"),
        "off": Product(rounded, {"loc": [0.1, -2.0, 3e7], "scale": 1e-30}),
        "arrays": Product(
            {"points": np.float32([[0.1, 0.2, -0.3]]), "occupancies": bits},
            {"share": 0.5},
            {"occupancies": ("bits", [3])},
        ),
        "json": Product({"iou": 0.5, "reason": "ü"}, {"evaluated": "ok"}),
    }


@pytest.mark.parametrize("kind", ["mesh", "off", "arrays", "json"])
def test_products_come_back_as_they_were(kind):
    product = products()[kind]
    content = encoding.encode(product, kind)
    again = encoding.decode(content, kind)
    assert (again.figures, again.status) == (product.figures, product.status)
    assert encoding.figures_of(content, kind) == (product.figures, product.status)
    assert encoding.encode(again, kind) == content
    if isinstance(product.value, Mesh):
        assert np.array_equal(again.value.vertices, product.value.vertices)
        assert np.array_equal(again.value.faces, product.value.faces)
    elif kind == "arrays":
        for name, array in product.value.items():
            assert np.array_equal(again.value[name], array) and again.value[name].dtype == array.dtype
    else:
        assert again.value == product.value


def test_ledgers_are_sorted_and_hold_any_name(tmp_path):
    rows = [
        Row('all/b\u2028line "quoted".off', "ok", KEY, f"stage/ab/{KEY}-{'d' * 40}.off", "d" * 40, 3),
        Row("all/a.off", "rejected", reason="no faces"),
    ]
    written = Ledger({"stage": "extract_meshes", "inputs": {}}, {row.shape: row for row in rows})
    ledger.write(tmp_path / "l.jsonl", written)
    assert ledger.read(tmp_path / "l.jsonl") == Ledger(written.header, dict(sorted(written.rows.items())))
    assert [json.loads(line).get("shape") for line in (tmp_path / "l.jsonl").read_text().split("\n")[1:-2]] == sorted(
        written.rows
    )


def test_a_file_that_is_no_ledger_is_refused(tmp_path):
    (tmp_path / "l.jsonl").write_text('{"shape": "a"}\n')
    with pytest.raises(ValueError, match=r"l\.jsonl is damaged"):
        ledger.read(tmp_path / "l.jsonl")


def test_a_torn_last_line_is_left_out(tmp_path):
    path = tmp_path / "timings.jsonl"
    files.append_line(path, {"shape": "a\u2028b"})
    with open(path, "a") as stream:
        stream.write('{"shape": "hal')
    assert files.read_journal(path) == [{"shape": "a\u2028b"}]


def test_entry_parts_are_read_from_its_name():
    entry = Entry(f"sample_boundary/ab/{KEY}-{'0' * 40}.safetensors", 1)
    assert (entry.stage, entry.key, entry.digest) == ("sample_boundary", KEY, "0" * 40)
