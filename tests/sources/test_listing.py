"""Shapes hashed into shards; what is added or gone changes the files it falls into, and no others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipeline import files, receipts
from pipeline.jobs.list_shapes import relist
from pipeline.sources import listing
from pipeline.sources.catalogue import Entry, read_catalogue
from pipeline.sources.errors import SourceError
from pipeline.sources.listing import CATALOGUE, MEMORY, list_source, listing_files, shard_of

SHARDS = {"chair": 4, "table": 2}


def entry(identifier: str, category: str = "chair", split: str = "train", reason: str | None = None) -> Entry:
    return Entry(category, identifier, split, {"kind": "file", "path": f"{identifier}.obj"}, reason)


def entries(count: int, first: int = 0) -> list[Entry]:
    return [entry(f"{n:04x}", split=("train", "val", "test")[n % 3]) for n in range(first, first + count)]


def rows(text: str) -> list[dict]:
    return [json.loads(line) for line in text.split("\n") if line]


# --- shards


def test_the_shard_of_a_shape_never_changes():
    """Another hash would move every shape of every study to another job."""
    identifiers = ("1006be65e7bc937e9141f9b58470d646", "a", "ä b.off", "")
    assert [shard_of(identifier, 27) for identifier in identifiers] == [11, 20, 25, 0]


def test_shards_are_about_equally_full():
    counts = [0] * 8
    for n in range(8000):
        counts[shard_of(f"{n:032x}", 8)] += 1
    assert min(counts) > 850 and max(counts) < 1150


def test_every_shape_is_in_exactly_one_member_file_and_every_test_shape_in_one_test_file():
    shapes = [*entries(60), *(entry(f"t{n}", "table", "test") for n in range(20))]
    texts = listing_files(shapes, SHARDS, 3)
    members = [row["shape"] for name, text in texts.items() if name.startswith("members/") for row in rows(text)]
    tests = [row["shape"] for name, text in texts.items() if name.startswith("test/") for row in rows(text)]
    assert sorted(members) == sorted(f"{e.category}/{e.id}" for e in shapes)
    assert sorted(tests) == sorted(f"{e.category}/{e.id}" for e in shapes if e.split == "test")
    assert read_catalogue(texts[CATALOGUE]) == sorted(shapes, key=lambda e: (e.category, e.id))


def test_a_test_shape_names_the_shard_that_its_data_lies_in():
    texts = listing_files(entries(60), SHARDS, 2)
    for name in ("test/0.jsonl", "test/1.jsonl"):
        for row in rows(texts[name]):
            home = rows(texts[f"members/{row['category']}/{row['shard']}.jsonl"])
            assert row["shape"] in [member["shape"] for member in home]


def test_there_is_a_file_for_every_shard_even_an_empty_one():
    texts = listing_files([entry("only", "table", "train")], SHARDS, 2)
    assert set(texts) == {
        CATALOGUE,
        *(f"members/chair/{k}.jsonl" for k in range(4)),
        *(f"members/table/{k}.jsonl" for k in range(2)),
        "test/0.jsonl",
        "test/1.jsonl",
    }
    assert sorted(len(rows(text)) for name, text in texts.items() if name != CATALOGUE) == [0] * 7 + [1]
    assert listing_files([], SHARDS, 1)["members/chair/0.jsonl"] == ""


def test_the_order_of_entries_changes_no_file():
    shapes = entries(40)
    assert listing_files(shapes[::-1], SHARDS, 2) == listing_files(shapes, SHARDS, 2)


def test_added_shapes_change_the_files_they_fall_into_and_no_others():
    before, new = listing_files(entries(60), SHARDS, 3), entries(2, first=60)
    after = listing_files([*entries(60), *new], SHARDS, 3)
    expected = {f"members/chair/{shard_of(e.id, 4)}.jsonl" for e in new}
    expected |= {f"test/{shard_of(f'chair/{e.id}', 3)}.jsonl" for e in new if e.split == "test"}
    assert {name for name in after if after[name] != before[name]} == expected | {CATALOGUE}
    assert len(expected) < len(after) - 1


def test_another_count_of_one_category_moves_no_shape_of_the_others():
    shapes = [*entries(30), *(entry(f"t{n}", "table") for n in range(30))]
    before, after = listing_files(shapes, SHARDS, 1), listing_files(shapes, SHARDS | {"chair": 7}, 1)
    for name in before:
        assert before[name] == after[name] or name.startswith(("members/chair/", "test/"))


def test_refused_shapes_are_members_with_their_reason():
    texts = listing_files([entry("bad", reason="not a mesh")], {"chair": 1}, 1)
    (row,) = rows(texts["members/chair/0.jsonl"])
    assert row["reason"] == "not a mesh"


def test_names_with_blanks_quotes_and_line_separators_stay_on_their_line():
    odd = ['a "b".off', "c d\u2028e.off", "f,g.off", "ä.off"]
    texts = listing_files([entry(name) for name in odd], {"chair": 1}, 1)
    assert [row["shape"] for row in rows(texts["members/chair/0.jsonl"])] == [f"chair/{n}" for n in sorted(odd)]


# --- listing again


@pytest.fixture
def source(tmp_path, monkeypatch) -> dict:
    """A folder of twelve meshes in three categories, listed into four shards each."""
    monkeypatch.chdir(tmp_path)
    for category in ("cup", "jar", "pan"):
        for n in range(4):
            add(f"{category}/{n}.off")
    settings = {
        "source": {"kind": "directory", "path": "meshes", "categories": ["cup", "jar", "pan"]},
        "shards": dict.fromkeys(("cup", "jar", "pan"), 4),
        "test_shards": 2,
    }
    found, memory = list_source(settings["source"], Path())
    texts = listing_files(found, settings["shards"], 2)
    for name, text in texts.items():
        files.write_atomic(Path("listed") / name, text)
    receipts.write(Path(), "f" * 40, {}, [Path("listed") / CATALOGUE, *(Path("listed") / name for name in texts)])
    files.write_sealed(Path("listed") / MEMORY, memory)
    return settings


def add(name: str) -> None:
    path = Path("meshes") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n")


def snapshot() -> dict[str, tuple[bytes, int]]:
    """Content and time of every file of the listing."""
    paths = [path for path in Path("listed").rglob("*") if path.is_file()]
    return {path.relative_to("listed").as_posix(): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def test_nothing_new_rewrites_no_member_file(source):
    before = snapshot()
    assert relist(source, Path(), Path("listed"), write=True) == (0, 0)
    after = snapshot()
    assert {n: v for n, v in after.items() if n != MEMORY} == {n: v for n, v in before.items() if n != MEMORY}


def test_new_and_gone_shapes_are_counted_and_only_their_files_rewritten(source):
    before = snapshot()
    add("cup/new.off")
    add("cup/more.off")
    Path("meshes/jar/0.off").unlink()
    assert relist(source, Path(), Path("listed"), write=True) == (2, 1)
    after = snapshot()
    touched = {name for name in after if after[name] != before[name]} - {MEMORY}
    moved = ["cup/cup/new.off", "cup/cup/more.off", "jar/jar/0.off"]
    homes = {f"members/{shape.split('/')[0]}/{shard_of(shape.split('/', 1)[1], 4)}.jsonl" for shape in moved}
    assert {name for name in touched if name.startswith("members/")} == homes
    assert touched <= homes | {CATALOGUE} | {f"test/{shard_of(shape, 2)}.jsonl" for shape in moved}
    listed = {f"{e.category}/{e.id}" for e in read_catalogue((Path("listed") / CATALOGUE).read_text())}
    assert "cup/cup/new.off" in listed and "jar/jar/0.off" not in listed
    made = receipts.read(receipts.path_of(Path(), f"listed/{CATALOGUE}")).made
    assert made == receipts.digests_of(made)
    assert relist(source, Path(), Path("listed"), write=True) == (0, 0)


def test_a_dry_run_counts_and_writes_nothing(source):
    add("pan/new.off")
    before = snapshot()
    for _ in range(2):
        assert relist(source, Path(), Path("listed"), write=False) == (1, 0)
        assert snapshot() == before


def test_an_edit_in_place_is_seen_without_being_a_new_shape(source):
    before = snapshot()
    path = Path("meshes/cup/1.off")
    path.write_text(path.read_text().replace("1 0 0", "2 0 0"))
    assert relist(source, Path(), Path("listed"), write=True) == (0, 0)
    touched = {name for name, value in snapshot().items() if value != before[name]} - {MEMORY}
    assert touched == {CATALOGUE, f"members/cup/{shard_of('cup/1.off', 4)}.jsonl"}


def test_a_source_that_is_gone_is_told_and_forgets_nothing(source):
    before = snapshot()
    shutil.move("meshes", "elsewhere")
    with pytest.raises(SourceError, match="meshes, does not exist"):
        relist(source, Path(), Path("listed"), write=True)
    assert snapshot() == before


# --- what is remembered


@pytest.fixture
def shapenet(tmp_path, monkeypatch) -> dict:
    monkeypatch.chdir(tmp_path)
    for model in ("m1", "m2"):
        add(f"03001627/{model}/models/model_normalized.obj")
    return {"kind": "shapenet", "version": "v2", "path": "meshes", "categories": ["03001627"]}


def test_a_tree_that_did_not_change_is_not_listed_again(shapenet):
    first, memory = list_source(shapenet, Path())
    assert [e.id for e in first] == ["m1", "m2"]
    memory = json.loads(json.dumps(memory))
    assert list_source(shapenet, Path(), memory) == (None, memory)
    add("03001627/m3/models/model_normalized.obj")
    again, other = list_source(shapenet, Path(), memory)
    assert [e.id for e in again] == ["m1", "m2", "m3"]
    assert other != memory


def test_an_unchanged_tree_is_relisted_without_a_change(shapenet):
    found, memory = list_source(shapenet, Path())
    for name, text in listing_files(found, {"03001627": 1}, 1).items():
        files.write_atomic(Path("listed") / name, text)
    files.write_sealed(Path("listed") / MEMORY, memory)
    before = snapshot()
    settings = {"source": shapenet, "shards": {"03001627": 1}, "test_shards": 1}
    assert relist(settings, Path(), Path("listed"), True) == (0, 0)
    assert snapshot() == before


def test_the_demo_is_listed_as_shapenet_is(tmp_path, monkeypatch):
    from pipeline.sources import demo

    monkeypatch.chdir(tmp_path)
    settings = demo.DemoSettings(categories=("chair",), shapes=3, broken=1)
    Path("03001627.zip").write_bytes(demo.make_archive("chair", settings))
    source = {"kind": "demo", "split": {}, "demo": settings.model_dump(mode="json")}
    found, memory = list_source(source, Path())
    assert {e.category for e in found} == {"03001627"} and len(found) == 4
    assert all(e.location["kind"] == "zip" for e in found)
    assert list_source(source, Path(), memory)[0] is None


def test_what_the_source_has_to_say_is_passed_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    said = []
    found, _ = listing.list_source({"kind": "directory", "path": "empty"}, Path(), report=said.append)
    assert found == [] and said == ["empty holds no shapes"]
