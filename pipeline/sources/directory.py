"""A folder of meshes of the user's own: every file is a shape, a companion of one, or refused with a reason.

The id of a shape is its path below the folder, suffix included. Without `categories` there is one, "all"; with them
each is a folder at the top, and files elsewhere are no part of the dataset.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from pipeline.settings import Settings
from pipeline.sources.archives import ReadLimits
from pipeline.sources.splits import SplitSettings


def _top_folders(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    for name in names or ():
        if not name or "/" in name or "\\" in name or name.startswith("."):
            raise ValueError(f"{name!r} is not the name of a folder directly below the path")
        if set(name) & set("{}") or not name.isprintable():
            raise ValueError(f"{name!r} holds braces or control characters, which file names of results cannot")
    if names is not None and len(set(names)) != max(len(names), 1):
        raise ValueError("name at least one category, and each once; or leave the key out")
    return names


class DirectorySettings(Settings):
    """A folder of OBJ, OFF, PLY, STL, GLB and GLTF files."""

    kind: Literal["directory"] = "directory"
    """This source."""

    path: str = Field(min_length=1)
    """The folder; it may be a link."""

    categories: Annotated[tuple[str, ...] | None, AfterValidator(_top_folders)] = None
    """Folders at the top, each a category; other files are left out. null: everything, as the category "all"."""

    follow_links: bool = False
    """Follow links that lead out of the folder. Links that stay inside are always followed."""

    split: SplitSettings = SplitSettings()
    """How shapes are divided into training, validation and test."""

    limits: ReadLimits = ReadLimits()
    """How much one raw file may hold."""


import os
import posixpath
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.names import same_name
from pipeline.sources.catalogue import Entry, Found, Report, entries_of, readable, silent
from pipeline.sources.companions import companion, named_buffers
from pipeline.sources.errors import SourceError
from pipeline.sources.formats import FORMAT_NAMES, HEAD_BYTES, MESHES, is_beside, is_hidden, sniff
from pipeline.sources.taxonomy import nearest

DEEPEST = 64  # folders within folders; deeper ones are links or accidents
SETTLED_NS = 2 * 10**9  # a folder changed within the last two seconds may change again within its time stamp's tick
NOT_A_MESH = f"not a mesh format Isomill reads ({FORMAT_NAMES})"
ARCHIVES = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".tar", ".7z", ".rar")
AN_ARCHIVE = "an archive; only shapes that stand unpacked in the folder are read"
NOT_REGULAR = "a pipe, socket or device, not a regular file"

Cache = dict[str, dict[str, Any]]


def list_directory(
    settings: DirectorySettings, cache: Cache | None = None, report: Report = silent
) -> tuple[list[Entry], Cache]:
    """Every shape below the folder, with a reason where it cannot be read, and the cache for the next listing.

    cache: JSON that an earlier call gave for the same folder. A folder whose times and link count are unchanged is
    not read again, and a glTF or suffix-less file is opened only when its size or time changed; every mesh file is
    still asked for its size and time, so that an edit in place is always seen. Raises SourceError where the folder
    or a category is missing.
    """
    root = Path(settings.path).expanduser()
    if not root.is_dir():
        raise SourceError(f"the folder of meshes, {root}, {'is not a folder' if root.exists() else 'does not exist'}")
    walk = _Walk(root.as_posix(), os.path.realpath(root), settings, cache or {"folders": {}, "files": {}})
    if settings.categories is None:
        walk.folder("", "all", ())
    else:
        for category, folder in _present(root, settings.categories, report).items():
            walk.item(folder, "l" if (root / folder).is_symlink() else "d", category, ())
    entries = entries_of(walk.found, settings.split, report)
    if not entries:
        report(f"{root} holds no shapes")
    return entries, walk.new


def _present(root: Path, categories: tuple[str, ...], report: Report) -> dict[str, str]:
    """Category → its folder, whose name may be written with other accents. Raises SourceError where there is none."""
    names = sorted(path.name for path in root.iterdir() if not is_hidden(path.name))
    folders = [readable(name) for name in names if (root / name).is_dir()]
    present = {}
    for category in categories:
        folder = same_name(category, folders)
        if folder is None:
            hint = nearest(category, folders) if folders else "it has no folders"
            raise SourceError(f"{root} has no folder {category} for a category; {hint}")
        present[category] = folder
    others = [readable(name) for name in names if name not in present.values() and not is_beside(name)]
    if others:
        shown = ", ".join(others[:8]) + (" …" if len(others) > 8 else "")
        report(f"{len(others):,} names in {root} belong to no category and are left out: {shown}")
    return present


@dataclass
class _Walk:
    """One pass over the folder; everything is named by its path below the root."""

    root: str
    real_root: str
    settings: DirectorySettings
    old: Cache
    new: Cache = field(default_factory=lambda: {"folders": {}, "files": {}})
    found: list[Found] = field(default_factory=list)

    def path(self, place: str) -> str:
        return f"{self.root}/{place}" if place else self.root  # pathlib would take half of the time of a large tree

    def folder(self, place: str, category: str, above: tuple[tuple[int, int], ...]) -> None:
        """List what stands in a folder. above: device and inode of the folders it stands in."""
        try:
            status = os.stat(self.path(place))
            if (status.st_dev, status.st_ino) in above:
                return self.refuse(place, category, "a link loop: it leads back to a folder that contains it")
            if len(above) >= DEEPEST:
                return self.refuse(place, category, f"it is nested more than {DEEPEST} folders deep")
            children = self._children(place, status)
        except OSError as error:
            if not place:
                raise SourceError(f"{self.root} cannot be read: {error.strerror}") from error
            return self.refuse(place, category, f"the folder cannot be read ({error.strerror})")
        for name, kind in children:
            self.item(f"{place}/{name}" if place else name, kind, category, (*above, (status.st_dev, status.st_ino)))

    def item(self, place: str, kind: str, category: str, above: tuple[tuple[int, int], ...]) -> None:
        """List one name. kind: d(irectory), f(ile), l(ink) or o(ther)."""
        name = posixpath.basename(place)
        if is_hidden(name):
            return
        reason = None if readable(name) == name else "its name is not valid UTF-8"
        if kind == "l" and not reason:
            kind, reason = self._behind_link(place)
        if kind == "d" and not reason:
            self.folder(place, category, above)
        elif not is_beside(name):
            if reason or kind == "o":
                self.refuse(place, category, reason or NOT_REGULAR)
            else:
                self.found.append(self._file(place, category))

    def refuse(self, place: str, category: str, reason: str) -> None:
        self.found.append(self._refused(place, category, reason))

    def _refused(self, place: str, category: str, reason: str) -> Found:
        return Found(category, readable(place), {}, reason)

    def _children(self, place: str, status: os.stat_result) -> list[list[str]]:
        """[name, kind] of everything in a folder, from the cache where the folder did not change."""
        stamp = [status.st_mtime_ns, status.st_ctime_ns, status.st_nlink]
        known = self.old["folders"].get(place)
        if known and known["stamp"] == stamp:
            self.new["folders"][place] = known
            return known["children"]
        listed_at = time.time_ns()
        children = sorted(_scan(self.path(place)))
        settled = max(status.st_mtime_ns, status.st_ctime_ns) < listed_at - SETTLED_NS
        if settled and all(readable(name) == name for name, _ in children):
            self.new["folders"][place] = {"stamp": stamp, "children": children}
        return children

    def _behind_link(self, place: str) -> tuple[str, str | None]:
        """Kind of what a link leads to, and why it is not followed."""
        path = self.path(place)
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            return "o", f"a link that leads nowhere ({error.strerror})"
        if not self._allowed(path):
            return "o", "a link that leads out of the folder (follow_links: true would follow it)"
        return ("d" if stat.S_ISDIR(mode) else "f" if stat.S_ISREG(mode) else "o"), None

    def _allowed(self, path: str) -> bool:
        return self.settings.follow_links or Path(os.path.realpath(path)).is_relative_to(self.real_root)

    def _file(self, place: str, category: str) -> Found:
        """A regular file: a shape, or refused."""
        path = self.path(place)
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                return self._refused(place, category, NOT_REGULAR)
            if status.st_size > self.settings.limits.max_bytes:
                reason = f"it holds {status.st_size:,} bytes, more than the limit of {self.settings.limits.max_bytes:,}"
                return self._refused(place, category, reason)
            reason, uris = self._look_inside(place, status)
            if reason:
                return self._refused(place, category, reason)
            folder = posixpath.dirname(place)
            companions = [companion(uri, folder, self.root, self._allowed) for uri in uris]
        except (OSError, ValueError) as error:
            problem = error.strerror if isinstance(error, OSError) else error
            return self._refused(place, category, f"it cannot be read ({problem})")
        location = {"kind": "file", "path": path, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
        return Found(category, place, location | ({"companions": companions} if companions else {}), None)

    def _look_inside(self, place: str, status: os.stat_result) -> tuple[str | None, list[str]]:
        """Why a file is no shape, and the URIs of its companions; opened only where its name does not tell."""
        suffix = posixpath.splitext(place)[1].lower()
        if suffix not in ("", *MESHES):
            return (AN_ARCHIVE if suffix in ARCHIVES else NOT_A_MESH), []
        path = self.path(place)
        if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
            return "it cannot be read (permission denied)", []
        if suffix not in ("", ".gltf"):
            return None, []
        known = self.old["files"].get(place)
        if not known or known[:2] != [status.st_size, status.st_mtime_ns]:
            known = [status.st_size, status.st_mtime_ns, *_inspect(path, suffix, status.st_size)]
        if status.st_mtime_ns < time.time_ns() - SETTLED_NS:
            self.new["files"][place] = known
        return known[2], known[3]


def _scan(folder: str) -> Iterator[list[str]]:
    with os.scandir(folder) as children:
        for child in children:
            if child.is_symlink():
                kind = "l"
            elif child.is_dir(follow_symlinks=False):
                kind = "d"
            else:
                kind = "f" if child.is_file(follow_symlinks=False) else "o"
            yield [child.name, kind]


def _inspect(path: str, suffix: str, size: int) -> tuple[str | None, list[str]]:
    """Reason and companions of a file whose name does not tell them."""
    if suffix == "":
        with open(path, "rb") as stream:
            return (None if sniff(stream.read(HEAD_BYTES), size) else NOT_A_MESH), []
    try:
        return None, named_buffers(path, size)
    except ValueError as problem:
        return str(problem), []
