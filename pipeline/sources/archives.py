"""Zip archives made by strangers: listed with every member judged, read one member at a time, never unpacked to disk.

A member that could leave its folder, is a link, is encrypted, unpacks to more than it should, shares its bytes or its
name with another one is listed with the reason why it is not read; the others stay usable.
"""

from __future__ import annotations

from pydantic import Field

from pipeline.settings import Settings


class ReadLimits(Settings):
    """How much one raw file or archive may hold."""

    max_bytes: int = Field(default=2**29, ge=1)
    """Bytes of one raw file, unpacked and with its companions. 512 MiB are about five million faces of OBJ text."""

    max_ratio: float = Field(default=200, ge=1)
    """Unpacked bytes per packed byte of one member. Meshes as text reach about 10; bombs reach 1000."""

    ratio_from_bytes: int = Field(default=2**20, ge=0)
    """Members below this many unpacked bytes may have any ratio: little files of one repeated line are harmless."""

    max_members: int = Field(default=5_000_000, ge=1)
    """Members of one archive. The whole of ShapeNetCore has fewer than two million."""

    max_total_bytes: int = Field(default=2**41, ge=1)
    """Unpacked bytes of all members of one archive together."""


import re
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.sources.errors import ArchiveError

STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
LOCAL_HEADER = struct.Struct("<4s5H3L2H")  # ends with the lengths of the name and of the extra field
ENCRYPTED_FLAGS, UTF8_FLAG = 0x0001 | 0x0040 | 0x2000, 0x0800
LONGEST_PART = 255  # bytes of one file or folder name on the usual file systems
UNREADABLE = (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, OverflowError, EOFError)
MAGIC = (
    (b"PK", "a zip archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\xfd7zXZ", "an xz file"),
    (b"BZh", "a bzip2 file"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (b"%PDF", "a PDF document"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
    (b"<?xml", "an XML message"),
    (b"{", "a JSON message"),
)


class MemberError(Exception):
    """One member cannot be read; the message is the reason."""


@dataclass(frozen=True)
class Member:
    """One file of an archive. reason: why it must not be read, or None. offset: of its local header."""

    name: str
    bytes: int
    packed: int
    crc: int
    offset: int
    method: int
    reason: str | None

    @property
    def parts(self) -> list[str]:
        return _parts(self.name)

    def location(self, archive: str) -> dict[str, Any]:
        """Where its bytes are, as JSON. With the offset a member is read without listing the archive again."""
        return {
            "kind": "zip",
            "archive": archive,
            "member": self.name,
            "bytes": self.bytes,
            "packed": self.packed,
            "crc": self.crc,
            "offset": self.offset,
            "method": self.method,
        }


def list_members(path: Path, limits: ReadLimits) -> list[Member]:
    """All files of a zip archive in its own order, folders left out.

    Raises ArchiveError where `path` is no zip archive, is cut short, or is larger than the limits; OSError where it
    cannot be opened.
    """
    infos, end = _central_directory(path)
    total = sum(info.file_size for info in infos)
    if len(infos) > limits.max_members or total > limits.max_total_bytes:
        raise ArchiveError(
            f"{path} announces {len(infos):,} members with {total:,} bytes unpacked; "
            f"the limits are {limits.max_members:,} members and {limits.max_total_bytes:,} bytes"
        )
    repeated = {name for name, count in Counter(_canonical(info) for info in infos).items() if count > 1}
    overlapping = _overlapping(infos, end)
    files = (info for info in infos if not info.orig_filename.endswith("/"))
    return [_member(info, _canonical(info) in repeated, info in overlapping, limits) for info in files]


def read_member(path: Path, location: Mapping[str, Any], limits: ReadLimits) -> bytes:
    """The unpacked bytes of one member, checked against its size and CRC-32.

    location: as `Member.location` gives it. Raises MemberError where the member is damaged or not the one that was
    listed; OSError where the archive cannot be opened.
    """
    reason = _size_reason(location["bytes"], location["packed"], limits)
    if reason:
        raise MemberError(reason)
    with open(path, "rb") as stream:
        packed = _packed_bytes(stream, location)
    content = packed if location["method"] == STORED else _inflated(packed, location["bytes"])
    if len(content) != location["bytes"] or zlib.crc32(content) != location["crc"]:
        raise MemberError("the archive is damaged here: size or CRC-32 of the member is wrong")
    return content


def unsafe_name(name: str) -> str | None:
    """Why a member's name cannot be trusted, or None. Nothing is unpacked, but such a name is never an accident."""
    if re.search(r"[\x00-\x1f\x7f]", name):
        return "its name holds control characters"
    if "\\" in name or re.match(r"[A-Za-z]:", name):
        return "its name holds a backslash or a drive letter"
    if name.startswith("/") or ".." in name.split("/"):
        return "its name leaves the folder of the archive"
    if not _parts(name) or any(len(part.encode("utf-8", "surrogatepass")) > LONGEST_PART for part in _parts(name)):
        return f"its name is empty or has a part of more than {LONGEST_PART} bytes"
    return None


def kind_of(head: bytes) -> str:
    """What a file seems to be, judged by its first kilobyte, in words."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if b"<html" in text[:1024].lower() or text[:9].lower() == b"<!doctype":
        title = re.search(rb"<title[^>]*>([^<]{1,80})", text, re.IGNORECASE)
        words = " ".join(title.group(1).decode("utf-8", "replace").split()) if title else ""
        shown = f" titled {words!r}" if words else ""
        return f"an HTML page{shown} (a login, quota or error page)"
    if not head:
        return "an empty file"
    if head[257:262] == b"ustar":
        return "a tar archive"
    return next((kind for magic, kind in MAGIC if text.startswith(magic)), "of an unknown kind")


def _central_directory(path: Path) -> tuple[list[zipfile.ZipInfo], int]:
    """The archive's own list of members and the offset where that list starts."""
    with open(path, "rb") as stream:
        head = stream.read(1024)
        try:
            with zipfile.ZipFile(stream) as archive:
                return archive.infolist(), archive.start_dir
        except UNREADABLE as error:
            if head.startswith(b"PK"):
                raise ArchiveError(
                    f"{path} starts like a zip archive, but its list of members is missing or damaged ({error}); "
                    f"it was probably cut short at {path.stat().st_size:,} bytes: fetch it again"
                ) from error
            raise ArchiveError(f"{path} is not a zip archive but {kind_of(head)}") from error


def _member(info: zipfile.ZipInfo, repeated: bool, overlapping: bool, limits: ReadLimits) -> Member:
    reason = (
        unsafe_name(info.orig_filename)
        or _type_reason(info)
        or _size_reason(info.file_size, info.compress_size, limits)
        or ("the archive holds two members of this name" if repeated else None)
        or ("it shares its bytes with another member" if overlapping else None)
    )
    name, size = info.orig_filename, info.file_size
    return Member(name, size, info.compress_size, info.CRC, info.header_offset, info.compress_type, reason)


def _type_reason(info: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(info.external_attr >> 16)  # zero where the archive was not made on Unix
    if kind == stat.S_IFLNK:
        return "it is a symbolic link"
    if kind not in (0, stat.S_IFREG):
        return "it is a device, pipe or folder, not a regular file"
    if info.flag_bits & ENCRYPTED_FLAGS:
        return "it is encrypted"
    if info.compress_type not in (STORED, DEFLATED):
        return f"its compression method {info.compress_type} is not read (only stored and deflated are)"
    return None


def _size_reason(size: int, packed: int, limits: ReadLimits) -> str | None:
    if size > limits.max_bytes or packed > limits.max_bytes:
        return f"it holds {size:,} bytes, more than the {limits.max_bytes:,} that one raw file may have"
    if size > limits.ratio_from_bytes and size > limits.max_ratio * packed:
        return f"it unpacks from {packed:,} to {size:,} bytes, more than {limits.max_ratio:g} times as much"
    return None


def _overlapping(infos: Iterable[zipfile.ZipInfo], end: int) -> set[zipfile.ZipInfo]:
    """Members whose bytes reach into the next member or into the list of members."""
    found: set[zipfile.ZipInfo] = set()
    last, reach = None, 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        stop = info.header_offset + LOCAL_HEADER.size + len(_name_bytes(info)) + info.compress_size
        if info.header_offset < reach and last is not None:
            found |= {last, info}
        if info.header_offset < 0 or stop > end:
            found.add(info)
        if stop > reach:
            last, reach = info, stop
    return found


def _packed_bytes(stream: BinaryIO, location: Mapping[str, Any]) -> bytes:
    stream.seek(location["offset"])
    header = stream.read(LOCAL_HEADER.size)
    if len(header) < LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
        raise MemberError("the archive is damaged here, or changed since it was listed")
    _, _, flags, method, *_, name_length, extra_length = LOCAL_HEADER.unpack(header)
    name = stream.read(name_length).decode("utf-8" if flags & UTF8_FLAG else "cp437", "replace")
    if name != location["member"] or method != location["method"] or flags & ENCRYPTED_FLAGS:
        raise MemberError("the archive is damaged here, or changed since it was listed")
    stream.seek(extra_length, 1)
    packed = stream.read(location["packed"])
    if len(packed) < location["packed"]:
        raise MemberError("the archive is cut short")
    return packed


def _inflated(packed: bytes, size: int) -> bytes:
    """At most one byte more than announced is ever made."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size + 1)
    except zlib.error as error:
        raise MemberError(f"the archive is damaged here ({error})") from error


def _name_bytes(info: zipfile.ZipInfo) -> bytes:
    return info.orig_filename.encode("utf-8" if info.flag_bits & UTF8_FLAG else "cp437", "replace")


def _canonical(info: zipfile.ZipInfo) -> str:
    return "/".join(_parts(info.orig_filename))


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]
