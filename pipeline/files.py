"""Every file that is written passes here: whole or not at all. And the digests, JSON and JSON lines of the workflow."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.settings import canonical_json


def digest_of(content: bytes) -> str:
    """Content digest: 40 hex digits of BLAKE2b."""
    return hashlib.blake2b(content, digest_size=20).hexdigest()


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
    write_atomic(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def read_lines(path: Path) -> list[Any]:
    """The values of a JSON-lines file; a last line torn by a kill is left out."""
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
