"""ShapeNetCore in all the forms people have it."""

import os
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.arrays import Rejected
from pipeline.sources import taxonomy
from pipeline.sources.archives import ReadLimits
from pipeline.sources.catalogue import read_raw
from pipeline.sources.errors import ArchiveError, SourceError
from pipeline.sources.shapenet import ShapeNetSettings, archive_name, list_shapenet, shapenet_signature
from tests.sources.zips import TETRAHEDRON, v2_name, write_zip

MALFORMED = Path(__file__).parents[2].parent / "shared" / "meshes" / "malformed"
CHAIR, LAMP, VESSEL, BOAT = "03001627", "03636649", "04530566", "02858304"


def settings(path, *categories, **others):
    return ShapeNetSettings(path=str(path), categories=categories, **others)


def put(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(TETRAHEDRON)
    return root


def table(entries):
    return {f"{entry.category}/{entry.id}": entry.reason for entry in entries}


def readable_ones(entries):
    return {entry.id: read_raw(entry.location).content for entry in entries if entry.reason is None}


def test_the_table_has_the_57_folders_of_v1_and_the_55_of_v2():
    assert len(taxonomy.NAMES) == len(set(taxonomy.NAMES.values())) == 57
    assert set(taxonomy.ONLY_V1) < set(taxonomy.NAMES)
    assert set(taxonomy.PARENTS) | set(taxonomy.PARENTS.values()) | set(taxonomy.ALIASES.values()) < set(taxonomy.NAMES)
    assert all(len(synset) == 8 and synset.isdigit() for synset in taxonomy.NAMES)


@pytest.mark.parametrize(
    ("given", "synset"),
    [("chair", CHAIR), ("Chair ", CHAIR), (CHAIR, CHAIR), ("3001627", CHAIR), ("watercraft", VESSEL),
     ("remote_control", "04074963"), ("00000000", "00000000")],
)  # fmt: skip
def test_categories_are_named_or_numbered(given, synset):
    assert taxonomy.synset_of(given) == synset
    assert settings("x", given).categories == (synset,)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"categories": ["chari"]}, "did you mean chair"),
        ({"categories": [1138000]}, 'write "04256520" with quotes'),
        ({"categories": [3001627]}, 'write "03001627" with quotes'),
        ({"categories": []}, "at least one"),
        ({"categories": ["chair", CHAIR]}, "twice"),
        ({"path": None}, "either path"),
        ({"archives": [{"category": "chair", "url": "x"}]}, "either path"),
        ({"path": None, "archives": [{"category": "lamp", "url": "x"}]}, f"no archive of {CHAIR}"),
    ],
)
def test_settings_that_cannot_be_say_why(wrong, words):
    with pytest.raises(ValidationError, match=words):
        ShapeNetSettings(**{"path": "x", "categories": ["chair"]} | wrong)


def test_archives_are_found_under_the_name_they_are_kept_by(tmp_path):
    write_zip(tmp_path / archive_name(CHAIR, "v2"), {v2_name(CHAIR, "a"): TETRAHEDRON})
    rows = ShapeNetSettings(archives=[{"category": "chair", "url": "https://x/y.zip"}], categories=["chair"])
    assert rows.archives[0].category == CHAIR
    assert table(list_shapenet(rows, tmp_path)) == {f"{CHAIR}/a": None}


@pytest.mark.parametrize(("version", "inner"), [("v1", "model.obj"), ("v2", "models/model_normalized.obj")])
def test_unpacked_trees_of_both_versions(tmp_path, version, inner):
    put(tmp_path, f"{CHAIR}/a/{inner}", f"{CHAIR}/u7b/{inner}", f"{CHAIR}/.hidden/{inner}", f"{CHAIR}/taxonomy.json")
    (tmp_path / CHAIR / "empty").mkdir()
    entries = list_shapenet(settings(tmp_path, "chair", version=version))
    assert table(entries) == {
        f"{CHAIR}/a": None,
        f"{CHAIR}/u7b": None,
        f"{CHAIR}/empty": f"its folder has no {inner}",
    }
    assert readable_ones(entries) == {"a": TETRAHEDRON, "u7b": TETRAHEDRON}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("asked", ["v1", "v2"])
def test_the_other_version_is_recognised(tmp_path, zipped, asked):
    inner = {"v1": "models/model_normalized.obj", "v2": "model.obj"}[asked]
    if zipped:
        write_zip(tmp_path / f"{CHAIR}.zip", {f"{CHAIR}/a/{inner}": TETRAHEDRON})
    else:
        put(tmp_path, f"{CHAIR}/a/{inner}")
    other = {"v1": "v2", "v2": "v1"}[asked]
    with pytest.raises(SourceError, match=f"layout of ShapeNetCore {other} .*not {asked}: set version"):
        list_shapenet(settings(tmp_path, "chair", version=asked))


def test_a_single_model_of_the_other_version_is_refused_alone(tmp_path):
    put(tmp_path, f"{CHAIR}/a/models/model_normalized.obj", f"{CHAIR}/b/model.obj")
    found = table(list_shapenet(settings(tmp_path, "chair")))
    assert found[f"{CHAIR}/a"] is None
    assert "layout of ShapeNetCore v1" in found[f"{CHAIR}/b"]


@pytest.mark.parametrize("prefix", [f"{CHAIR}/", "", f"ShapeNetCore.v2/{CHAIR}/"])
def test_archives_with_and_without_the_folder_of_the_synset(tmp_path, prefix):
    members = {
        f"{prefix}a/models/model_normalized.obj": TETRAHEDRON,
        f"{prefix}a/models/model_normalized.mtl": b"",
        f"{prefix}b/images/t.png": b"",
        f"{prefix}a/images/{CHAIR}/t.png": b"",
        f"{prefix}taxonomy.json": b"[]",
        f"__MACOSX/{prefix}._a/models/model_normalized.obj": b"junk",
    }
    write_zip(tmp_path / f"{CHAIR}.zip", members)
    entries = list_shapenet(settings(tmp_path, "chair"))
    assert table(entries) == {f"{CHAIR}/a": None, f"{CHAIR}/b": "its folder has no models/model_normalized.obj"}
    assert readable_ones(entries) == {"a": TETRAHEDRON}


@pytest.mark.parametrize("by_file", [True, False])
def test_one_archive_of_everything(tmp_path, by_file):
    members = {f"ShapeNetCore.v2/{v2_name(synset, 'a')}": TETRAHEDRON for synset in (CHAIR, LAMP)}
    path = write_zip(tmp_path / "ShapeNetCore.v2.zip", members)
    entries = list_shapenet(settings(path if by_file else tmp_path, "lamp", "chair"))
    assert table(entries) == {f"{CHAIR}/a": None, f"{LAMP}/a": None}


def test_hostile_members_are_listed_with_their_reason_and_the_rest_is_used(tmp_path):
    members = [(v2_name(LAMP, "good"), TETRAHEDRON), ("../../evil.obj", b""), ("..\\evil.txt", b"")]
    members += [(v2_name(LAMP, "twice"), TETRAHEDRON), (v2_name(LAMP, "twice"), b"v 0 0 0\n")]
    members += [(v2_name(LAMP, "bomb"), bytes(2_000_000))]
    write_zip(tmp_path / f"{LAMP}.zip", members)
    found = table(list_shapenet(settings(tmp_path, "lamp")))
    assert found.pop(f"{LAMP}/good") is None
    assert {name: reason.split(", more")[0] for name, reason in found.items()} == {
        f"{LAMP}/../../evil.obj": "its name leaves the folder of the archive",
        f"{LAMP}/twice": "the archive holds two members of this name",
        f"{LAMP}/bomb": f"it unpacks from {len_packed(2_000_000)} to 2,000,000 bytes",
    }


def len_packed(count: int) -> str:
    import zlib

    compressor = zlib.compressobj(-1, zlib.DEFLATED, -15)
    return f"{len(compressor.compress(bytes(count)) + compressor.flush()):,}"


def test_trees_with_pipes_links_and_odd_names(tmp_path):
    real = put(tmp_path / "elsewhere", "m/models/model_normalized.obj") / "m"
    put(tmp_path, f"{CHAIR}/a/models/model_normalized.obj")
    (tmp_path / CHAIR / "linked").symlink_to(real)
    (tmp_path / CHAIR / "pipe/models").mkdir(parents=True)
    os.mkfifo(tmp_path / CHAIR / "pipe/models/model_normalized.obj")
    os.mkdir(os.fsencode(tmp_path / CHAIR) + b"/bad\xff")
    found = table(list_shapenet(settings(tmp_path, "chair")))
    assert found == {
        f"{CHAIR}/a": None,
        f"{CHAIR}/linked": None,
        f"{CHAIR}/pipe": "it is not a regular file",
        rf"{CHAIR}/bad\xff": "the name of its folder is not valid UTF-8",
    }


def test_a_mesh_above_the_limit_is_refused(tmp_path):
    put(tmp_path, f"{CHAIR}/a/models/model_normalized.obj")
    (entry,) = list_shapenet(settings(tmp_path, "chair", limits=ReadLimits(max_bytes=10)))
    assert "more than the limit of 10" in entry.reason


def test_models_of_a_child_category_are_listed_once(tmp_path):
    put(tmp_path, f"{VESSEL}/a/model.obj", f"{VESSEL}/b/model.obj", f"{BOAT}/b/model.obj", f"{BOAT}/c/model.obj")
    said = []
    found = table(list_shapenet(settings(tmp_path, "boat", "vessel", version="v1"), report=said.append))
    assert set(found) == {f"{VESSEL}/a", f"{VESSEL}/b", f"{BOAT}/c"}
    assert said == ["1 models stand in a category and in its parent; they are listed once"]
    assert set(table(list_shapenet(settings(tmp_path, "boat", version="v1")))) == {f"{BOAT}/b", f"{BOAT}/c"}


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(SourceError, match="does not exist"):
        list_shapenet(settings(tmp_path / "absent", "chair"))
    put(tmp_path, f"{LAMP}/a/models/model_normalized.obj")
    with pytest.raises(SourceError, match=rf"neither {CHAIR}/ nor {CHAIR}\.zip .*category chair.*it holds {LAMP}"):
        list_shapenet(settings(tmp_path, "chair"))
    with pytest.raises(SourceError, match="version 2 has no such category"):
        list_shapenet(settings(tmp_path, "boat"))
    write_zip(tmp_path / f"{CHAIR}.zip", {"inner.zip": b"PK"})
    with pytest.raises(SourceError, match="unpack it once"):
        list_shapenet(settings(tmp_path, "chair"))
    (tmp_path / f"{CHAIR}.zip").write_bytes(b"<html><title>Log in</title>")
    with pytest.raises(ArchiveError, match="HTML page titled 'Log in'"):
        list_shapenet(settings(tmp_path, "chair"))


def test_the_signature_changes_with_every_change_of_the_source(tmp_path):
    put(tmp_path, f"{CHAIR}/a/models/model_normalized.obj")
    write_zip(tmp_path / f"{LAMP}.zip", {v2_name(LAMP, "a"): TETRAHEDRON})
    asked = settings(tmp_path, "chair", "lamp")
    seen = [shapenet_signature(asked)]
    assert shapenet_signature(asked) == seen[0]
    put(tmp_path, f"{CHAIR}/b/models/model_normalized.obj")
    seen.append(shapenet_signature(asked))
    (tmp_path / CHAIR / "a/models/model_normalized.obj").write_bytes(TETRAHEDRON + b"\n")
    seen.append(shapenet_signature(asked))
    write_zip(tmp_path / f"{LAMP}.zip", {v2_name(LAMP, "b"): TETRAHEDRON + b"\n"})
    seen.append(shapenet_signature(asked))
    assert len({str(signature) for signature in seen}) == 4


@pytest.mark.parametrize(
    ("name", "usable", "refused"),
    [
        ("good_layout.zip", {"lamp_one", "lamp_two"}, 0),
        ("path_traversal.zip", {"ok"}, 5),
        ("symlink.zip", {"ok"}, 1),
        ("crc_error.zip", {"lamp_two"}, 0),
        ("bomb_256MiB.zip", set(), 1),
        ("one_long_line.zip", set(), 1),
        ("duplicate_names.zip", {"A"}, 1),
    ],
)
def test_archives_of_the_corpus(tmp_path, name, usable, refused):
    if not (MALFORMED / name).is_file():
        pytest.skip("the corpus of malformed files (../shared/meshes) is not here")
    shutil.copy(MALFORMED / name, tmp_path / f"{LAMP}.zip")
    entries = list_shapenet(settings(tmp_path, "lamp"))
    assert sum(entry.reason is not None for entry in entries) == refused
    read = set()
    for entry in entries:
        try:
            read |= {entry.id} if entry.reason is None and read_raw(entry.location).content else set()
        except Rejected as error:
            assert "damaged" in str(error)
    assert read == usable
