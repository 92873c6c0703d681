"""A folder of the user's own: what is a shape, what is refused and why, and what a second listing costs."""

import json
import os
import socket
import time
import unicodedata
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.meshes.read import ReadSettings, extract_meshes
from pipeline.sources import directory
from pipeline.sources.archives import ReadLimits
from pipeline.sources.catalogue import read_raw
from pipeline.sources.directory import DirectorySettings, list_directory
from pipeline.sources.errors import SourceError
from tests import solids
from tests.meshes.files import glb, gltf_document
from tests.sources.reported import reported_path
from tests.sources.zips import TETRAHEDRON

CORPUS = Path(__file__).parents[2].parent / "shared" / "meshes"
OFF = b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"


def put(root: Path, *names: str, content: bytes = TETRAHEDRON) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def listed(root, **others):
    entries, _ = list_directory(DirectorySettings(path=str(root), **others))
    return {f"{entry.category}:{entry.id}": entry.reason for entry in entries}


def settle(root: Path):
    """Make the folder look as if it had been left alone for a while: old files, and a clock that went on."""
    for path in [*root.rglob("*"), root]:
        os.utime(path, ns=(10**18, 10**18), follow_symlinks=False)


@pytest.fixture
def later(monkeypatch):
    real = time.time_ns
    monkeypatch.setattr(directory.time, "time_ns", lambda: real() + 10**11)


def test_all_formats_in_any_case_are_shapes_and_texts_are_none(tmp_path):
    names = ["a.obj", "b.OFF", "c/d.Ply", "c/e.stl", "c/d/f.GLB"]
    put(tmp_path, *names, "a.mtl", "t.png", "README", "LICENSE.txt", "meshes.csv", ".hidden.obj", ".git/x.obj")
    assert listed(tmp_path) == {f"all:{name}": None for name in names}


def test_other_files_are_refused_by_name(tmp_path):
    put(tmp_path, "b.3MF", "c.dae", "d.obj.bak", content=b"noise")
    assert set(listed(tmp_path).values()) == {"not a mesh format Isomill reads (OBJ, OFF, PLY, STL, GLB, GLTF)"}
    assert len(listed(tmp_path)) == 3


def test_archives_are_refused_as_what_they_are(tmp_path):
    put(tmp_path, "a.zip", "b.tar.gz", "c.stl.ZIP", "d.7z", content=b"noise")
    assert len(listed(tmp_path)) == 4
    assert set(listed(tmp_path).values()) == {"an archive; only shapes that stand unpacked in the folder are read"}


@pytest.mark.parametrize(
    "content",
    [
        OFF,
        b"\xef\xbb\xbfCOFF\n",
        b"OFF8 12 0\n",
        b"ply\nformat ascii 1.0\n",
        b"glTF\x02\0\0\0",
        b"solid x\n facet normal 0 0 1\n",
        bytes(80) + (2).to_bytes(4, "little") + bytes(100),
        b"# made by hand\n\nv 0 0 0\nv 1 0 0\n",
    ],
)
def test_without_a_suffix_the_content_tells(tmp_path, content):
    put(tmp_path, "shape", content=content)
    assert listed(tmp_path) == {"all:shape": None}


@pytest.mark.parametrize(
    "content", [b"", b"OFFICE hours", b"solid advice", b"v8 engine 1 2 3", b"\0v 0 0 0\n", bytes(84)]
)
def test_without_a_suffix_other_contents_are_refused(tmp_path, content):
    put(tmp_path, "shape", content=content)
    assert "not a mesh format" in listed(tmp_path)["all:shape"]


def test_categories_are_folders_at_the_top_and_the_rest_is_left_out_aloud(tmp_path):
    put(tmp_path, "chairs/a.obj", "chairs/x/b.obj", "lamps/a.obj", "tables/a.obj", "loose.obj", "notes.txt")
    said = []
    entries, _ = list_directory(
        DirectorySettings(path=str(tmp_path), categories=["chairs", "lamps"]), None, said.append
    )
    assert [(entry.category, entry.id) for entry in entries] == [
        ("chairs", "chairs/a.obj"),
        ("chairs", "chairs/x/b.obj"),
        ("lamps", "lamps/a.obj"),
    ]
    assert said == [f"2 names in {tmp_path} belong to no category and are left out: loose.obj, tables"]


def test_a_category_is_found_however_its_accents_are_written(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "stühle") for form in ("NFC", "NFD"))
    put(tmp_path, f"{decomposed}/a.obj")
    said = []
    entries, _ = list_directory(DirectorySettings(path=str(tmp_path), categories=[composed]), None, said.append)
    assert [(entry.category, entry.id) for entry in entries] == [(composed, f"{decomposed}/a.obj")]
    assert not said


def test_missing_folders_are_errors(tmp_path):
    with pytest.raises(SourceError, match="does not exist"):
        listed(tmp_path / "absent")
    put(tmp_path, "chairs/a.obj")
    with pytest.raises(SourceError, match="is not a folder"):
        listed(tmp_path / "chairs/a.obj")
    with pytest.raises(SourceError, match=r"no folder chair .*did you mean chairs"):
        listed(tmp_path, categories=["chair"])
    for names in (["a/b"], [".."], [""], [".git"], [], ["a", "a"]):
        with pytest.raises(ValidationError):
            DirectorySettings(path="x", categories=names)


def test_a_folder_named_like_a_mesh_is_a_folder(tmp_path):
    put(tmp_path, "x.obj/inner.obj")
    assert listed(tmp_path) == {"all:x.obj/inner.obj": None}


def test_the_root_may_be_a_link(tmp_path):
    put(tmp_path / "real", "a.obj")
    (tmp_path / "link").symlink_to("real")
    assert listed(tmp_path / "link") == {"all:a.obj": None}


def test_links_are_followed_inside_and_refused_outside(tmp_path):
    root = put(tmp_path / "root", "real/a.obj", "empty/.keep")
    put(tmp_path / "outside", "b.obj")
    (root / "again").symlink_to("real")
    (root / "copy.obj").symlink_to("real/a.obj")
    (root / "away").symlink_to(tmp_path / "outside")
    (root / "away.obj").symlink_to("../outside/b.obj")
    (root / "broken.obj").symlink_to("nowhere")
    (root / "note.txt").symlink_to("nowhere")
    inside = {"all:again/a.obj": None, "all:copy.obj": None, "all:real/a.obj": None}
    broken = {"all:broken.obj": "a link that leads nowhere (No such file or directory)"}
    refused = "a link that leads out of the folder (follow_links: true would follow it)"
    assert listed(root) == inside | broken | {"all:away": refused, "all:away.obj": refused}
    assert listed(root, follow_links=True) == inside | broken | {"all:away/b.obj": None, "all:away.obj": None}


@pytest.mark.parametrize("follow_links", [False, True])
def test_link_loops_end_with_a_reason(tmp_path, follow_links):
    put(tmp_path, "a/b/x.obj")
    (tmp_path / "a/b/up").symlink_to("..")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "here").symlink_to(".")
    found = listed(tmp_path, follow_links=follow_links)
    assert found["all:a/b/x.obj"] is None
    assert "link loop" in found["all:a/b/up"]
    assert "link loop" in found["all:here"]
    assert "leads nowhere" in found["all:self"]
    assert len(found) == 4


def test_pipes_and_sockets_are_refused_without_being_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # socket paths must be short
    os.mkfifo("pipe.obj")
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.stl")
        assert set(listed(".").values()) == {"a pipe, socket or device, not a regular file"}
        assert len(listed(".")) == 3


def test_unreadable_files_and_folders_have_a_reason(tmp_path, monkeypatch):
    put(tmp_path, "locked.obj", "shut/a.obj")
    real_stat, real_scan = os.access, os.scandir
    monkeypatch.setattr(
        os, "access", lambda path, *a, **k: Path(path).name != "locked.obj" and real_stat(path, *a, **k)
    )

    def scandir(path):
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied")
        return real_scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert listed(tmp_path) == {
        "all:locked.obj": "it cannot be read (permission denied)",
        "all:shut": "the folder cannot be read (Permission denied)",
    }


def test_odd_names_are_ids_as_they_are(tmp_path):
    names = ["-rf.obj", "a b & (c) %41 $(x) 'q'.off", "emoji_🪑.stl", "new\nline.ply", "é.obj", "é.obj"]
    put(tmp_path, *names, "A.obj", "a.obj")
    assert set(listed(tmp_path)) == {f"all:{name}" for name in [*names, "A.obj", "a.obj"]}


def test_names_that_are_not_utf8_are_refused_as_text(tmp_path):
    base = os.fsencode(tmp_path)
    os.mkdir(base + b"/dir\xff")
    for name in (b"/x\xe9.obj", b"/dir\xff/inner.obj", b"/notes\xe9.txt"):
        Path(os.fsdecode(base + name)).write_bytes(TETRAHEDRON)
    found = listed(tmp_path)
    assert found == {r"all:x\xe9.obj": "its name is not valid UTF-8", r"all:dir\xff": "its name is not valid UTF-8"}


def test_a_file_above_the_limit_is_refused(tmp_path):
    put(tmp_path, "a.obj")
    assert "more than the limit of 9" in listed(tmp_path, limits=ReadLimits(max_bytes=9))["all:a.obj"]


def test_very_deep_folders_are_refused(tmp_path):
    put(tmp_path, "/".join(["d"] * 70) + "/a.obj")
    (reason,) = listed(tmp_path).values()
    assert "64 folders deep" in reason


def gltf(*uris):
    return json.dumps({"buffers": [{"uri": uri, "byteLength": 1} for uri in uris]}).encode()


def test_gltf_buffers_are_companions(tmp_path):
    put(tmp_path, "m/two words.bin", "m/b.bin", content=b"12")
    put(tmp_path, "m/x.gltf", content=gltf("two%20words.bin", "b.bin", "b.bin", "data:;base64,AA=="))
    (entry,), _ = list_directory(DirectorySettings(path=str(tmp_path)))
    assert [row["name"] for row in entry.location["companions"]] == ["two%20words.bin", "b.bin"]
    assert read_raw(entry.location).companions == {"two%20words.bin": b"12", "b.bin": b"12"}


@pytest.mark.parametrize(
    "uri", ["two%20words%20%C3%BC.bin", "two words ü.bin", "two%20words ü.bin", "x/../two words ü.bin"]
)
@pytest.mark.parametrize("form", ["NFC", "NFD", None])
def test_companions_are_read_by_the_names_they_are_given(tmp_path, uri, form):
    name = uri if form is None else unicodedata.normalize(form, "two words ü.bin")
    document, buffer = gltf_document(solids.three_boxes())
    document["buffers"][0]["uri"] = uri
    put(tmp_path, f"m/{name}", content=buffer)
    put(tmp_path, "m/x.gltf", content=json.dumps(document).encode())
    (entry,), _ = list_directory(DirectorySettings(path=str(tmp_path)))
    assert entry.reason is None
    raw = read_raw(entry.location)
    assert raw.companions == {uri: buffer}
    mesh = extract_meshes(raw.content, raw.name, raw.companions, ReadSettings()).value
    assert len(mesh.faces) == len(solids.three_boxes().faces)


def test_what_is_meant_goes_before_what_is_written(tmp_path):
    put(tmp_path, "a b.bin", content=b"meant")
    put(tmp_path, "a%20b.bin", content=b"written")
    put(tmp_path, "x.gltf", content=gltf("a%20b.bin"))
    (entry,), _ = list_directory(DirectorySettings(path=str(tmp_path)))
    assert read_raw(entry.location).companions == {"a%20b.bin": b"meant"}


def test_a_glb_that_is_called_gltf_needs_no_companions(tmp_path):
    put(tmp_path, "x.gltf", content=glb(*gltf_document(solids.three_boxes())))
    assert listed(tmp_path) == {"all:x.gltf": None}


def test_reported_folders_are_listed_and_read_whole():
    for place, root in (("inner.gltf", ""), ("Box With Spaces.gltf", "My Models")):
        entries, _ = list_directory(DirectorySettings(path=str(reported_path(root))))
        (entry,) = [entry for entry in entries if entry.id == place]
        raw = read_raw(entry.location)
        mesh = extract_meshes(raw.content, raw.name, raw.companions, ReadSettings()).value
        assert len(mesh.faces) == 12


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gltf("gone.bin"), "missing"),
        (gltf("%2e%2e/%2e%2e/secret.bin"), "leaves the folder"),
        (gltf("..%2f..%2fsecret.bin"), "leaves the folder"),
        (gltf("%2Fetc%2Fpasswd"), "not a file beside it"),
        (gltf("%66ile:///etc/passwd"), "not a file beside it"),
        (gltf("a%00b.bin"), "not a file beside it"),
        (gltf("\ud800.bin"), "not a file beside it"),
        (gltf("../../secret.bin"), "leaves the folder"),
        (gltf("http://example.org/b.bin"), "not a file beside it"),
        (gltf("/etc/passwd"), "not a file beside it"),
        (gltf("..\\b.bin"), "not a file beside it"),
        (b"{", "not glTF"),
        (b"[" * 100_000, "not glTF"),
        (b'{"buffers": 3}', "not glTF"),
        (b'{"buffers": [3]}', "not glTF 2.0 (its buffers are not a list of objects)"),
        (b'{"buffers": {"binary": {}}}', "not glTF 2.0 (it names its buffers as version 1.0 does)"),
        (b"[]", "not glTF 2.0 (its JSON is not an object)"),
    ],
)
def test_gltf_that_names_other_places_is_refused(tmp_path, content, words):
    put(tmp_path, "root/x.gltf", content=content)
    put(tmp_path, "secret.bin")
    assert words in listed(tmp_path / "root")["all:x.gltf"]
    assert words in listed(tmp_path / "root", follow_links=True)["all:x.gltf"]


def test_a_second_listing_reads_no_folder_that_did_not_change(tmp_path, monkeypatch, later):
    put(tmp_path, "a/x.obj", "b/y.obj", "b/c/z.obj")
    put(tmp_path, "b/shape", content=OFF)
    put(tmp_path, "b/g.gltf", content=gltf())
    settings = DirectorySettings(path=str(tmp_path))
    first, cache = list_directory(settings)
    assert json.loads(json.dumps(cache)) == cache

    scanned, opened = [], []
    real_scan, real_inspect = directory._scan, directory._inspect
    monkeypatch.setattr(directory, "_scan", lambda folder: scanned.append(Path(folder).name) or real_scan(folder))
    monkeypatch.setattr(
        directory, "_inspect", lambda path, *a: opened.append(Path(path).name) or real_inspect(path, *a)
    )
    assert list_directory(settings, cache) == (first, cache)
    assert scanned == opened == []

    put(tmp_path, "b/c/new.obj")
    second, _ = list_directory(settings, cache)
    assert scanned == ["c"] and opened == []
    assert {entry.id for entry in second} - {entry.id for entry in first} == {"b/c/new.obj"}
    (tmp_path / "a/x.obj").unlink()
    third, _ = list_directory(settings, cache)
    assert {entry.id for entry in second} - {entry.id for entry in third} == {"a/x.obj"}


def test_an_edit_in_place_is_seen_with_the_cache(tmp_path, later):
    put(tmp_path, "x.obj")
    put(tmp_path, "shape", content=OFF)
    put(tmp_path, "b.bin", content=b"1")
    put(tmp_path, "g.gltf", content=gltf("b.bin"))
    settings = DirectorySettings(path=str(tmp_path))
    first, cache = list_directory(settings)
    put(tmp_path, "x.obj", content=TETRAHEDRON + b"\n")
    put(tmp_path, "shape", content=b"nothing any more")
    put(tmp_path, "b.bin", content=b"12")
    second, _ = list_directory(settings, cache)
    changed = [(a.id, b.reason) for a, b in zip(first, second, strict=True) if a != b]
    assert [name for name, _ in changed] == ["g.gltf", "shape", "x.obj"]
    assert "not a mesh format" in dict(changed)["shape"]


def test_a_folder_that_changed_a_moment_ago_is_not_trusted(tmp_path):
    put(tmp_path, "x.obj")
    _, cache = list_directory(DirectorySettings(path=str(tmp_path)))
    assert cache["folders"] == {}


def test_moved_and_restored_times_do_not_hide_a_change(tmp_path, later):
    put(tmp_path, "x.obj")
    settle(tmp_path)
    settings = DirectorySettings(path=str(tmp_path))
    _, cache = list_directory(settings)
    put(tmp_path, "y.obj")
    settle(tmp_path)
    second, _ = list_directory(settings, cache)
    assert [entry.id for entry in second] == ["x.obj", "y.obj"]


def test_the_order_of_creation_does_not_matter(tmp_path):
    names = ["b.obj", "a/z.obj", "a/y.obj", "c.obj"]
    first = listed(put(tmp_path / "one", *names))
    second = listed(put(tmp_path / "two", *reversed(names)))
    assert list(first) == list(second) == sorted(first)


def test_every_file_of_the_corpus_is_a_shape_or_has_a_reason():
    if not CORPUS.is_dir():
        pytest.skip("the corpus of meshes (../shared/meshes) is not here")
    found = listed(CORPUS)
    refused = {name for name, reason in found.items() if reason}
    assert len([name for name in refused if name.endswith(".zip")]) == 11
    assert refused - {name for name in refused if name.endswith(".zip")} == {"all:malformed/real/trimesh_counterXP.3MF"}
    assert found["all:malformed/no_extension"] is None
    assert found["all:malformed/name with spaces & (brackets) %41.off"] is None
    assert found["all:malformed/real/trimesh_cube.OBJ"] is None
    assert set(found) == {f"all:{name}" for name in files_but_texts(CORPUS)}


def files_but_texts(folder):
    """Paths below a folder, of all files but those that only people read."""
    texts = {".txt", ".md", ".csv", ".py"}
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() not in texts]
    return {path.relative_to(folder).as_posix() for path in paths}
