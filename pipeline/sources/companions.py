"""The files beside a .gltf that hold its buffers: which it names, and where they lie, never outside a given folder."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pipeline.sources.formats import gltf_buffers

MOST_COMPANIONS = 1000
LONGEST_GLTF = 2**26  # bytes of the JSON part; buffers stand beside it


def named_buffers(path: str, size: int) -> list[str]:
    """The URIs of the buffers that a .gltf of `size` bytes needs beside it, as written.

    Raises ValueError with the reason where it is no glTF, or names too much; OSError where it cannot be read.
    """
    if size > LONGEST_GLTF:
        raise ValueError(f"its JSON holds more than {LONGEST_GLTF:,} bytes")
    with open(path, "rb") as stream:
        content = stream.read(LONGEST_GLTF)
    try:
        uris = gltf_buffers(content)
    except ValueError as error:
        raise ValueError(f"it is not glTF 2.0 ({error})") from error
    if len(uris) > MOST_COMPANIONS:
        raise ValueError(f"it names more than {MOST_COMPANIONS} buffers")
    return uris


def companion(uri: str, folder: str, root: str, is_allowed: Callable[[str], bool]) -> dict[str, Any]:
    """A row of a location's "companions": the URI as written, and the path, size and time of the file it means.

    folder: of the .gltf, below `root`. is_allowed: whether what lies at a path, links followed, may be read. A URI is
    percent-encoded by the format; files that are named by what is written, or by another Unicode form of it, are found
    too. Raises ValueError where it leads out of the root or to nothing.
    """
    problems = []
    meant = unquote(uri)
    for name in dict.fromkeys((meant, *(unicodedata.normalize(form, meant) for form in ("NFC", "NFD")), uri)):
        try:
            path = _path_of(name, folder, root, is_allowed)
        except ValueError as problem:
            problems.append(problem)
            continue
        status = os.stat(path)
        return {"name": uri, "path": path, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    raise ValueError(f"its buffer {uri!r} {problems[0]}")


def location_within(path: Path, root: Path) -> dict[str, Any]:
    """The location of one mesh file, with the companions that a source of the folder `root` would find.

    Raises ValueError with the reason where a companion is missing or leads out of the root; OSError where the file
    cannot be read.
    """
    status = path.stat()
    location = {"kind": "file", "path": str(path), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    if path.suffix.lower() != ".gltf":
        return location
    real_root = os.path.realpath(root)
    folder = path.parent.relative_to(root).as_posix()

    def is_allowed(place: str) -> bool:
        return Path(os.path.realpath(place)).is_relative_to(real_root)

    uris = named_buffers(str(path), status.st_size)
    return location | {"companions": [companion(uri, folder, str(root), is_allowed) for uri in uris]}


def _path_of(name: str, folder: str, root: str, is_allowed: Callable[[str], bool]) -> str:
    """Where a file of that name lies. Raises ValueError with what is wrong with it."""
    elsewhere = name.startswith("/") or re.match(r"[A-Za-z][\w+.-]*:", name)
    no_text = "\0" in name or name != name.encode(errors="replace").decode()
    if elsewhere or no_text or "\\" in name:
        raise ValueError("is not a file beside it")
    inner = posixpath.normpath(posixpath.join(folder, name))
    path = f"{root}/{inner}"
    if inner.split("/")[0] == ".." or not is_allowed(path):
        raise ValueError("leaves the folder")
    if not os.path.isfile(path):
        raise ValueError("is missing")
    return path
