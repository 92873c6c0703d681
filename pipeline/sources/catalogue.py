"""Which shapes a source holds, where the bytes of each are, and how they are read.

Listing happens in the workflow's main process, so nothing here loads numpy.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.settings import canonical_json
from pipeline.sources.archives import MemberError, ReadLimits, read_member
from pipeline.sources.errors import SourceError, SplitError
from pipeline.sources.split_ids import Matches, Name, match_ids, shown
from pipeline.sources.splits import Lists, SplitSettings, assign_split, read_split_lists

COLUMNS = ("category", "id", "split", "location", "reason")
# Errors that belong to one file; others (EIO, ESTALE, EMFILE, ...) to the disk or the machine.
OF_THE_FILE = (
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENXIO),
    *(errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG),
)

Report = Callable[[str], None]


def silent(message: str) -> None:
    """The report of somebody who does not want one."""


@dataclass(frozen=True)
class Entry:
    """One shape of a source.

    location: JSON; {} where there is nothing to read, else
        {"kind": "file", "path", "bytes", "mtime_ns"} and, for glTF, "companions": rows of {"name", "path", ...}, or
        {"kind": "zip", "archive", "member", "bytes", "packed", "crc", "offset", "method"}.
    reason: why the shape is refused without being read, or None.
    """

    category: str
    id: str
    split: str
    location: dict[str, Any]
    reason: str | None = None


class Found(NamedTuple):
    """A shape before its split is known."""

    category: str
    id: str
    location: dict[str, Any]
    reason: str | None


@dataclass(frozen=True)
class RawFile:
    """A raw file as bytes. companions: URI as the file writes it → bytes of the buffer it names."""

    content: bytes
    name: str
    companions: dict[str, bytes] = field(default_factory=dict)


def entries_of(found: Iterable[Found], settings: SplitSettings, report: Report) -> list[Entry]:
    """Give every shape its split; sorted by category and id. Shapes in no list are left out, and counted.

    Raises SplitError where lists name none of the shapes, or contradict themselves.
    """
    shapes = _distinct(found)
    names = [(shape.category, shape.id) for shape in shapes]
    lists = read_split_lists(settings)
    matches = _matched(lists, names, settings) if lists is not None and shapes else None
    entries, left_out = [], []
    for shape in shapes:
        split = assign_split(shape.category, shape.id, settings, matches and matches.splits)
        if split is None:
            left_out.append(f"{shape.category}/{shape.id}")
        else:
            entries.append(Entry(shape.category, shape.id, split, shape.location, shape.reason))
    if left_out:
        report(f"{len(left_out):,} shapes are in no split list and are left out, for example {left_out[0]}")
    if matches and matches.absent:
        report(
            f"{len(matches.absent):,} ids of the split lists are not in the source, for example "
            f"{shown(matches.absent[0])}; {len(matches.splits):,} of its {len(names):,} shapes are listed, "
            f"and {_looks(names)}"
        )
    if matches and matches.ambiguous:
        report(f"{len(matches.ambiguous):,} ids of the split lists fit several shapes and give none{_fits(matches)}")
    return entries


def _matched(lists: Lists, names: list[Name], settings: SplitSettings) -> Matches:
    """The splits of a source's shapes as its lists give them. Raises SplitError where they name none of them."""
    matches = match_ids(lists, names)
    if not matches.splits:
        category, listed = next(iter(lists))
        where = f" in category {category!r}" if category else ""
        raise SplitError(
            f"none of {len(lists):,} listed ids is in the source; {_looks(names)}, but {settings.path} lists, for "
            f"example, {listed!r}{where}{_fits(matches)}"
        )
    return matches


def _looks(names: list[Name]) -> str:
    category, shape = names[0]
    return f"an id looks like {shape!r} in category {category!r}"


def _fits(matches: Matches) -> str:
    """The end of a message that shows an id which may mean several shapes; empty where none does."""
    for name, meant in matches.ambiguous.items():
        return f"; {shown(name)!r} fits {' and '.join(repr(shown(shape)) for shape in meant[:3])}"
    return ""


def write_catalogue(entries: Iterable[Entry]) -> str:
    """The catalogue as CSV text, one line per shape; everything is quoted, so that ids keep their zeros and breaks."""
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in sorted(entries, key=lambda entry: (entry.category, entry.id)):
        writer.writerow((entry.category, entry.id, entry.split, canonical_json(entry.location), entry.reason or ""))
    return stream.getvalue()


def read_catalogue(text: str) -> list[Entry]:
    """The entries that `write_catalogue` wrote. Raises ValueError where the text is not a catalogue."""
    return [
        Entry(category, shape, split, json.loads(place), reason or None)
        for category, shape, split, place, reason in _rows(text)
    ]


def count_splits(text: str) -> Counter[str]:
    """How many shapes of a catalogue that are not refused unread each split has. Raises ValueError as above."""
    rows = _rows(text)
    return Counter(split for _, _, split, _, reason in rows if not reason)


def _rows(text: str) -> list[list[str]]:
    rows = csv.reader(io.StringIO(text, newline=""))
    header = tuple(next(rows, ()))
    if header != COLUMNS:
        raise ValueError(
            f"a catalogue has the columns {', '.join(COLUMNS)}; received {', '.join(header) or 'no header'}"
        )
    return list(rows)


def read_raw(location: Mapping[str, Any], root: str | Path = "", limits: ReadLimits | None = None) -> RawFile:
    """The bytes that a location names; relative paths are taken from `root` (by default the working directory).

    Raises pipeline.arrays.Rejected where this shape's file cannot be used: gone, unreadable, too large, not a regular
    file, damaged in its archive. Raises OSError or SourceError for what is no fault of the shape: a lost archive,
    folder or disk.
    """
    from pipeline.arrays import Rejected

    limits = limits or ReadLimits()
    try:
        if location["kind"] == "zip":
            content = read_member(Path(root, location["archive"]), location, limits)
            return RawFile(content, location["member"].rsplit("/", 1)[-1])
        return _read_files(location, Path(root), limits)
    except MemberError as error:
        raise Rejected(str(error)) from error


def readable(name: str) -> str:
    """A file name as valid text: bytes that are not UTF-8 are written out, as in `chair\\xff.obj`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _read_files(location: Mapping[str, Any], root: Path, limits: ReadLimits) -> RawFile:
    content = _read_file(root / location["path"], limits.max_bytes)
    left = limits.max_bytes - len(content)
    companions = {}
    for row in location.get("companions", ()):
        companions[row["name"]] = _read_file(root / row["path"], left)
        left -= len(companions[row["name"]])
    return RawFile(content, Path(location["path"]).name, companions)


def _read_file(path: Path, max_bytes: int) -> bytes:
    try:
        # Without O_NONBLOCK a pipe that took the file's place since it was listed would hang the job.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as stream:
            before = os.fstat(stream.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise MemberError("it is not a regular file")
            if before.st_size > max_bytes:
                raise MemberError(f"it holds {before.st_size:,} bytes, more than the limit leaves ({max_bytes:,})")
            content = stream.read(before.st_size + 1)
            after = os.fstat(stream.fileno())
    except OSError as error:
        if error.errno not in OF_THE_FILE:
            raise
        if not path.parent.is_dir():
            raise SourceError(f"{path.parent} is not there any more; is its disk mounted?") from error
        raise MemberError(f"it cannot be read ({error.strerror})") from error
    if len(content) != before.st_size or after.st_mtime_ns != before.st_mtime_ns:
        raise MemberError("it was changed while it was read; run the same command again")
    return content


def _distinct(found: Iterable[Found]) -> list[Found]:
    """Sorted, with ids that occur once: names that become equal as text are numbered, repeated refusals merged."""
    kept: dict[tuple[str, str], Found] = {}
    for shape in sorted(found, key=lambda shape: (shape.category, shape.id, shape.reason is not None)):
        name, number = shape.id, 1
        while (shape.category, name) in kept and kept[shape.category, name].reason != shape.reason:
            number += 1
            name = f"{shape.id} ({number})"
        kept.setdefault((shape.category, name), shape._replace(id=name))
    return [kept[key] for key in sorted(kept)]
