"""The catalogue as text, splits of found shapes, and reading raw files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.arrays import Rejected
from pipeline.sources.archives import ReadLimits, list_members
from pipeline.sources.catalogue import (
    Entry,
    Found,
    entries_of,
    read_catalogue,
    read_raw,
    readable,
    silent,
    write_catalogue,
)
from pipeline.sources.errors import SourceError
from pipeline.sources.splits import SplitSettings
from tests.sources.zips import TETRAHEDRON, write_zip

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
entries = st.builds(
    Entry, text, text, st.sampled_from(["train", "val", "test"]), st.dictionaries(text, st.integers()), st.none() | text
)


@given(st.lists(entries, unique_by=lambda e: (e.category, e.id), max_size=8))
def test_a_catalogue_survives_writing_and_reading(rows):
    rows = [Entry(e.category, e.id, e.split, e.location, e.reason or None) for e in rows]
    assert read_catalogue(write_catalogue(rows)) == sorted(rows, key=lambda e: (e.category, e.id))
    assert write_catalogue(reversed(rows)) == write_catalogue(rows)


def test_ids_keep_their_zeros_and_line_breaks():
    entry = Entry("02691156", 'a\r\n"b", 007', "test", {"kind": "file"})
    assert '"02691156"' in write_catalogue([entry])
    assert read_catalogue(write_catalogue([entry])) == [entry]


def test_another_table_is_not_a_catalogue():
    with pytest.raises(ValueError, match="a catalogue has the columns"):
        read_catalogue("id,name\n1,x\n")


def test_names_that_become_equal_as_text_stay_two_shapes():
    found = [
        Found("all", "x", {}, "bad name"),
        Found("all", "x", {"path": "x"}, None),
        Found("all", "x", {}, "bad name"),
    ]
    rows = entries_of(found, SplitSettings(), silent)
    assert [(row.id, row.reason) for row in rows] == [("x", None), ("x (2)", "bad name")]


def test_shapes_in_no_list_and_ids_without_shape_are_counted(tmp_path):
    (tmp_path / "train.lst").write_text("a\nz\n")
    said = []
    settings = SplitSettings(kind="files", path=str(tmp_path))
    rows = entries_of([Found("c", name, {}, None) for name in "abd"], settings, said.append)
    assert [(row.id, row.split) for row in rows] == [("a", "train")]
    assert said[0].startswith("2 shapes are in no split list") and "c/b" in said[0]
    assert said[1].startswith("1 ids of the split lists are not in the source")


def file_location(path):
    return {"kind": "file", "path": path.name, "bytes": 1, "mtime_ns": 1}


def test_a_file_is_read_with_its_companions(tmp_path):
    (tmp_path / "a.gltf").write_bytes(b"{}")
    (tmp_path / "two words.bin").write_bytes(b"12345")
    row = {"name": "two%20words.bin", "path": "two words.bin", "bytes": 5, "mtime_ns": 1}
    raw = read_raw(file_location(tmp_path / "a.gltf") | {"companions": [row]}, tmp_path)
    assert (raw.content, raw.name, raw.companions) == (b"{}", "a.gltf", {"two%20words.bin": b"12345"})
    with pytest.raises(Rejected, match="more than the limit leaves"):
        read_raw(file_location(tmp_path / "a.gltf") | {"companions": [row]}, tmp_path, ReadLimits(max_bytes=6))


def test_a_member_is_read_by_its_location(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"03001627/m/model.obj": TETRAHEDRON})
    raw = read_raw(list_members(path, ReadLimits())[0].location("a.zip"), tmp_path)
    assert (raw.content, raw.name) == (TETRAHEDRON, "model.obj")


def test_what_took_the_place_of_a_file_is_rejected_without_hanging(tmp_path):
    os.mkfifo(tmp_path / "pipe.obj")
    (tmp_path / "folder.obj").mkdir()
    (tmp_path / "loop.obj").symlink_to("loop.obj")
    for name, words in (
        ("pipe.obj", "regular"),
        ("folder.obj", "Is a directory"),
        ("loop.obj", "cannot be read"),
        ("gone.obj", "No such file"),
    ):
        with pytest.raises(Rejected, match=words):
            read_raw(file_location(tmp_path / name), tmp_path)


def test_a_file_that_grew_beyond_the_limit_is_rejected(tmp_path):
    (tmp_path / "a.obj").write_bytes(bytes(100))
    with pytest.raises(Rejected, match="100 bytes"):
        read_raw(file_location(tmp_path / "a.obj"), tmp_path, ReadLimits(max_bytes=99))


def test_a_file_changed_while_it_is_read_is_rejected(tmp_path, monkeypatch):
    path, real = tmp_path / "a.obj", os.fstat
    path.write_bytes(TETRAHEDRON)
    clock = iter(range(10))

    def fstat(descriptor):
        os.utime(path, ns=(0, next(clock)))  # somebody writes between the first look and the second
        return real(descriptor)

    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(Rejected, match="changed while it was read"):
        read_raw(file_location(path), tmp_path)


def test_a_lost_folder_or_archive_is_no_fault_of_the_shape(tmp_path):
    with pytest.raises(SourceError, match="not there any more"):
        read_raw({"kind": "file", "path": "lost/a.obj"}, tmp_path)
    path = write_zip(tmp_path / "a.zip", {"x.obj": TETRAHEDRON})
    location = list_members(path, ReadLimits())[0].location("a.zip")
    path.unlink()
    with pytest.raises(OSError, match=r"a\.zip"):
        read_raw(location, tmp_path)


def test_names_are_written_out_as_text():
    assert readable("stuhl_椅子") == "stuhl_椅子"
    assert readable(os.fsdecode(b"chair\xff.obj")) == r"chair\xff.obj"


def test_listing_loads_neither_numpy_nor_a_network_library():
    code = (
        "import sys, pipeline.sources.directory, pipeline.sources.download, pipeline.sources.shapenet\n"
        "sys.exit(' '.join({'numpy', 'requests', 'filelock', 'torch'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
