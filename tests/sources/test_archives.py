"""Hostile and damaged zip archives: what is listed, what is read, and what the reasons say."""

import contextlib
import io
import random
import shutil
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources import archives
from pipeline.sources.archives import ReadLimits, kind_of, list_members, read_member, unsafe_name
from pipeline.sources.errors import ArchiveError
from tests.sources.zips import TETRAHEDRON, write_zip

LIMITS = ReadLimits()
MALFORMED = Path(__file__).parents[2].parent / "shared" / "meshes" / "malformed"


def corpus(name: str) -> Path:
    path = MALFORMED / name
    if not path.is_file():
        pytest.skip("the corpus of malformed files (../shared/meshes) is not here")
    return path


def reasons(path: Path, limits: ReadLimits = LIMITS) -> dict[str, str | None]:
    return {member.name: member.reason for member in list_members(path, limits)}


def only_member(path: Path, limits: ReadLimits = LIMITS) -> archives.Member:
    (member,) = list_members(path, limits)
    return member


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_come_back_byte_for_byte(tmp_path, method):
    contents = {"a/x.obj": TETRAHEDRON, "a/empty.obj": b"", "b/stuhl_椅子.off": bytes(range(256)) * 50}
    path = write_zip(tmp_path / "a.zip", contents, method=method)
    members = list_members(path, LIMITS)
    assert [member.name for member in members] == list(contents)
    assert {m.name: read_member(path, m.location("a.zip"), LIMITS) for m in members} == contents


def test_zip64_streamed_and_prefixed_archives_are_read(tmp_path):
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

        def tell(self):
            raise io.UnsupportedOperation

    pipe = Pipe()
    with (
        zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.obj", "w", force_zip64=True) as out,
    ):
        out.write(TETRAHEDRON)
    path = tmp_path / "a.zip"
    path.write_bytes(b"#!/bin/sh self-extracting\n" + pipe.getvalue())
    member = only_member(path)
    assert member.reason is None
    assert read_member(path, member.location("a.zip"), LIMITS) == TETRAHEDRON


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../x.obj", "leaves the folder"),
        ("a/../../x.obj", "leaves the folder"),
        ("/etc/x.obj", "leaves the folder"),
        ("..\\x.obj", "backslash"),
        ("C:/x.obj", "drive"),
        ("a\nb.obj", "control"),
        ("a\0b.obj", "control"),
        ("x" * 256 + ".obj", "255 bytes"),
        ("椅" * 86, "255 bytes"),
    ],
)
def test_names_that_could_leave_the_folder_are_refused(tmp_path, name, words):
    path = write_zip(tmp_path / "a.zip", {"good.obj": TETRAHEDRON, name: TETRAHEDRON})
    found = reasons(path)
    assert found.pop("good.obj") is None
    assert [words in reason for reason in found.values()] == [True]


@given(st.text(max_size=60))
def test_accepted_names_stay_below_any_root(name):
    if unsafe_name(name) is None:
        inside = Path("/base/inner", name).resolve()
        assert inside.is_relative_to("/base/inner") and inside != Path("/base/inner")


def test_links_devices_and_encrypted_members_are_refused(tmp_path):
    def spoil(infos):
        infos[0].external_attr = (stat.S_IFLNK | 0o777) << 16
        infos[1].external_attr = (stat.S_IFCHR | 0o600) << 16
        infos[2].flag_bits |= 1
        infos[3].external_attr = (stat.S_IFREG | stat.S_ISUID | 0o755) << 16

    path = write_zip(tmp_path / "a.zip", dict.fromkeys(("link", "device", "secret", "good"), TETRAHEDRON), spoil)
    found = reasons(path)
    assert "symbolic link" in found["link"]
    assert "device" in found["device"]
    assert "encrypted" in found["secret"]
    assert found["good"] is None


def test_other_compression_methods_are_named(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"x.obj": TETRAHEDRON}, method=zipfile.ZIP_BZIP2)
    assert "compression method 12" in only_member(path).reason


def test_a_bomb_is_refused_by_its_ratio_and_small_members_are_not(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"bomb.obj": bytes(3_000_000), "small.obj": bytes(500_000)})
    found = reasons(path)
    assert "200 times" in found["bomb.obj"]
    assert found["small.obj"] is None


def test_limits_of_size_count_and_total(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a": b"1" * 50, "b": b"2" * 10})
    assert "more than the 20" in reasons(path, ReadLimits(max_bytes=20))["a"]
    for limits in (ReadLimits(max_members=1), ReadLimits(max_total_bytes=59)):
        with pytest.raises(ArchiveError, match="announces 2 members with 60 bytes"):
            list_members(path, limits)


def test_members_that_share_bytes_are_refused(tmp_path):
    def spoil(infos):
        infos[1].header_offset = infos[0].header_offset

    path = write_zip(tmp_path / "a.zip", {"a": b"1" * 50, "b": b"1" * 50, "c": b"3"}, spoil)
    found = reasons(path)
    assert "shares its bytes" in found["a"] and "shares its bytes" in found["b"]
    assert found["c"] is None


def test_a_member_that_reaches_into_the_list_of_members_is_refused(tmp_path):
    def spoil(infos):
        infos[0].compress_size += 10

    path = write_zip(tmp_path / "a.zip", {"a": b"1" * 50}, spoil, zipfile.ZIP_STORED)
    assert "shares its bytes" in only_member(path).reason


def test_names_that_are_equal_after_cleaning_are_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", [("m/x.obj", b"1"), ("./m//x.obj", b"2"), ("M/x.obj", b"3")])
    found = reasons(path)
    assert "two members" in found["m/x.obj"] and "two members" in found["./m//x.obj"]
    assert found["M/x.obj"] is None


def test_wrong_checksum_and_wrong_size_are_found_on_reading(tmp_path):
    def spoil(infos):
        infos[0].CRC ^= 1
        infos[1].file_size -= 1
        infos[2].file_size += 1

    path = write_zip(tmp_path / "a.zip", dict.fromkeys("abc", TETRAHEDRON), spoil)
    for member in list_members(path, LIMITS):
        with pytest.raises(archives.MemberError, match="size or CRC-32"):
            read_member(path, member.location("a.zip"), LIMITS)


def test_a_member_that_lies_about_its_size_makes_no_more_bytes_than_announced():
    import zlib

    packed = zlib.compress(bytes(10_000_000), 9)[2:-4]
    assert len(archives._inflated(packed, 1000)) == 1001


def test_every_flipped_byte_of_a_member_is_found(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"x.obj": TETRAHEDRON})
    member, whole = only_member(path), path.read_bytes()
    location = member.location("a.zip")
    data = member.offset + 30 + len("x.obj")
    for place in range(data, data + member.packed):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            assert read_member(path, location, LIMITS) == TETRAHEDRON  # unused bits of the last byte may differ
        except archives.MemberError:
            continue
        assert place == data + member.packed - 1


@pytest.mark.parametrize("seed", range(8))
def test_mutated_archives_end_in_members_or_messages(tmp_path, seed):
    members = {"a/x.obj": TETRAHEDRON, "b/y.off": bytes(range(256)), "b/stuhl_椅子": b"z" * 3000}
    whole, chance = write_zip(tmp_path / "a.zip", members).read_bytes(), random.Random(seed)
    for _ in range(60):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(content))
            content[place : place + chance.choice([0, 1, 1, 1, 5])] = chance.randbytes(chance.choice([1, 1, 1, 4]))
        (tmp_path / "a.zip").write_bytes(content)
        try:
            found = list_members(tmp_path / "a.zip", LIMITS)
        except ArchiveError:
            continue
        for member in found:
            with contextlib.suppress(archives.MemberError):
                if member.reason is None:
                    assert read_member(tmp_path / "a.zip", member.location(""), LIMITS) in members.values()


def test_an_archive_changed_since_it_was_listed_is_noticed(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"x.obj": TETRAHEDRON})
    location = only_member(path).location("a.zip")
    write_zip(path, {"y.obj": TETRAHEDRON})
    with pytest.raises(archives.MemberError, match="changed since it was listed"):
        read_member(path, location, LIMITS)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(archives.MemberError, match="changed since it was listed"):
        read_member(path, location, LIMITS)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html><head><title>Sign in - Drive</title>", "HTML page titled 'Sign in - Drive'"),
        (b"", "an empty file"),
        (b"\x1f\x8b\x08rest", "gzip"),
        (bytes(257) + b"ustar" + bytes(250), "tar"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (b'{"error": "quota"}', "JSON"),
        (b"\x00\x01\x02", "unknown"),
    ],
)
def test_what_is_no_archive_is_called_what_it_is(tmp_path, content, words):
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    assert words in kind_of(content)
    with pytest.raises(ArchiveError, match="not a zip archive but .*" + words):
        list_members(path, LIMITS)


def test_a_truncated_archive_says_so_at_every_length(tmp_path):
    whole = write_zip(tmp_path / "a.zip", {"x.obj": TETRAHEDRON, "y.obj": TETRAHEDRON}).read_bytes()
    cut = tmp_path / "cut.zip"
    for size in range(4, len(whole) - 1, 7):
        cut.write_bytes(whole[:size])
        with pytest.raises(ArchiveError, match="cut short"):
            list_members(cut, LIMITS)


@pytest.mark.parametrize("name", ["truncated.zip", "not_a_zip.zip"])
def test_corpus_archives_without_a_list_are_refused_whole(name):
    with pytest.raises(ArchiveError, match="list of members is missing or damaged"):
        list_members(corpus(name), LIMITS)


def test_corpus_archives_are_judged_member_by_member(tmp_path):
    def bad(name):
        return {m: r for m, r in reasons(corpus(name)).items() if r}

    assert list_members(corpus("empty_archive.zip"), LIMITS) == []
    assert not bad("good_layout.zip")
    assert len(bad("path_traversal.zip")) == 5
    assert list(bad("symlink.zip")) == ["03636649/link/models/model_normalized.obj"]
    assert "200 times" in next(iter(bad("bomb_256MiB.zip").values()))
    assert "200 times" in next(iter(bad("one_long_line.zip").values()))
    path = shutil.copy(corpus("crc_error.zip"), tmp_path)
    first, second = list_members(Path(path), LIMITS)
    with pytest.raises(archives.MemberError, match="damaged"):
        read_member(path, first.location(""), LIMITS)
    assert len(read_member(path, second.location(""), LIMITS)) == 9556
