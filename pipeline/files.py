"""Every file that is written passes here: whole or not at all. And the digests, JSON and JSON lines of the workflow."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline import processes
from pipeline.settings import canonical_json

TEMPORARY = ".tmp-"
# What processes elsewhere were writing is nobody's when it has not grown for a day: files are written in one go.
SECONDS_OF_SILENCE = 24 * 3600.0


class DamagedRecord(ValueError):
    """A file that this workflow writes is not as it was written."""


def digest_of(content: bytes) -> str:
    """Content digest: 40 hex digits of BLAKE2b."""
    return hashlib.blake2b(content, digest_size=20).hexdigest()


def digest_of_file(path: Path) -> str:
    """Content digest of a file of any size."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, functools.partial(hashlib.blake2b, digest_size=20)).hexdigest()


def temporary_name(folder: Path) -> Path:
    """A name in `folder` that says which process may be writing it, so that the dead ones' leftovers can be swept."""
    pid = os.getpid()
    return folder / f"{_prefix_of_this_place()}{pid}-{processes.start_time(pid)}-{secrets.token_hex(6)}"


def _prefix_of_this_place() -> str:
    return f"{TEMPORARY}{socket.gethostname()}-{processes.place()}-"


def write_atomic(path: Path, content: bytes | str, scratch: Path | None = None) -> None:
    """Write the whole file or nothing: temporary name, flush, fsync, rename, fsync of the folder.

    scratch: a folder on the same file system for the temporary name; the file's own folder by default.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(scratch or path.parent)
    try:
        with open(temporary, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException as problem:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(problem, OSError):
            problem.filename = str(path)  # a full disk does not tell which file it had no room for
        raise
    _sync_folder(path.parent)


def write_if_changed(path: Path, content: bytes | str) -> bool:
    """Write atomically unless the file already holds exactly this; True if it was written."""
    content = content.encode() if isinstance(content, str) else content
    if path.is_file() and path.read_bytes() == content:
        return False
    write_atomic(path, content)
    return True


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value. Raises ValueError for NaN and infinity; `settings.as_json` makes them null."""
    write_atomic(path, _json_text(value))


def write_json_if_changed(path: Path, value: Any) -> bool:
    """Write a JSON value unless the file holds exactly this already; True if it was written."""
    return write_if_changed(path, _json_text(value))


def _json_text(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def seal(text: str) -> str:
    """Text that closes with a line holding its own digest, so that an edited or damaged copy is recognised."""
    return text + canonical_json({"digest": digest_of(text.encode())}) + "\n"


def unseal(text: str) -> str:
    """The text that `seal` closed. Raises ValueError where it is not as it was sealed."""
    body_end = text.rfind("\n", 0, -1) + 1
    body = text[:body_end]
    if not body or text != seal(body):
        raise ValueError("the digest in its last line is not that of its text")
    return body


def write_sealed(path: Path, value: Any) -> None:
    """Write a JSON value with its digest."""
    write_atomic(path, seal(canonical_json(value) + "\n"))


def read_sealed(path: Path) -> Any:
    """The value that `write_sealed` wrote. Raises DamagedRecord where it is not as it was."""
    try:
        return json.loads(unseal(Path(path).read_text(encoding="utf-8")))
    except ValueError as problem:  # bytes that are no text are one, too
        raise DamagedRecord(f"{path} is damaged: {problem}") from None


def read_lines(path: Path) -> list[Any]:
    """The values of a JSON-lines file. Raises DamagedRecord where a line is none."""
    lines = Path(path).read_text(encoding="utf-8").split("\n")
    try:
        return [json.loads(line) for line in lines if line]
    except ValueError as problem:
        raise DamagedRecord(f"{path} is damaged: {problem}") from None


def read_journal(path: Path) -> list[Any]:
    """The values of a JSON-lines file that processes append to; a last line torn by a kill is left out."""
    rows = []
    for line in filter(None, Path(path).read_text(encoding="utf-8").split("\n")):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def append_line(path: Path, value: Any) -> None:
    """Add one JSON line in a single write, so that two processes cannot mix theirs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "ab") as stream:
            stream.write((canonical_json(value) + "\n").encode())
    except OSError as problem:
        problem.filename = str(path)
        raise


def sweep_temporaries(folder: Path, below: bool = False) -> None:
    """Remove what processes that are gone were writing in `folder`, and in all folders below it where `below` is set.

    Of this machine's processes the name tells which one it was. Of others (another host, container or start of the
    machine) nobody can see whether they live; what has not been written to for a day is nobody's.
    """
    now = None
    for path in list(_temporaries(folder, below)):
        owner = re.fullmatch(re.escape(_prefix_of_this_place()) + r"(\d+)-(\d+|None)-[0-9a-f]+", path.name)
        if owner:
            gone = processes.start_time(int(owner[1])) != owner[2]
        else:
            now = clock_of(folder) if now is None else now
            gone = now - _last_write(path) > SECONDS_OF_SILENCE
        if gone:
            _remove(path)


def _temporaries(folder: Path, below: bool) -> Iterator[Path]:
    """Files and folders with temporary names; what such a folder holds goes with it."""
    for parent, folders, names in os.walk(folder):
        yield from (Path(parent, name) for name in (*folders, *names) if name.startswith(TEMPORARY))
        folders[:] = [name for name in folders if below and not name.startswith(TEMPORARY)]


def clock_of(folder: Path) -> float:
    """The time by the clock of the file system that holds `folder`, which may be another machine's, in seconds."""
    path = temporary_name(folder)
    path.touch()
    try:
        return path.stat().st_mtime
    finally:
        path.unlink(missing_ok=True)


def _last_write(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
