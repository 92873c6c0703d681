"""Every file that is written passes here: whole or not at all. And the digests, JSON and JSON lines of the workflow."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import secrets
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.settings import canonical_json


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
    return folder / f".tmp-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(6)}"


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


def sweep_temporaries(folder: Path) -> None:
    """Remove temporary files that processes of this host left behind when they died."""
    prefix = f".tmp-{socket.gethostname()}-"
    for path in folder.glob(f"{prefix}*"):
        pid = path.name.removeprefix(prefix).split("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
