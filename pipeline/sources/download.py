"""Fetch one file: from a web address with resume, or from this machine; whole and verified, or not at all."""

from __future__ import annotations

from pydantic import Field

from pipeline.settings import Settings


class DownloadSettings(Settings):
    """How files are fetched."""

    folder: str = Field(default="downloads", min_length=1)
    """Folder that keeps fetched archives, relative to the working directory."""

    timeout_s: float = Field(default=30, gt=0)
    """Seconds without an answer or a byte after which the connection is given up and made anew."""

    retries: int = Field(default=8, ge=0)
    """Tries in a row that bring nothing new before the download stops."""

    backoff_s: float = Field(default=1, ge=0)
    """Seconds before the first repeated try; doubled each time, a random half more or less."""

    longest_wait_s: float = Field(default=300, ge=0)
    """The longest wait in seconds, also where the server asks for more (Retry-After): then the download stops."""

    slowest_bytes_per_s: int = Field(default=1000, ge=0)
    """Below this mean rate over `timeout_s` a connection counts as hanging. 0: any rate is fine."""


import contextlib
import hashlib
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.sources.archives import kind_of
from pipeline.sources.errors import DownloadError

SPARE_BYTES = 64 * 2**20  # disk space that stays free

Report = Callable[[str], None]
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Fetched:
    """A file that is complete: where it lies, its size in bytes and its SHA-256 in hex."""

    path: Path
    bytes: int
    sha256: str


def fetch(
    url: str,
    destination: Path,
    sha256: str | None = None,
    expected_bytes: int | None = None,
    settings: DownloadSettings | None = None,
    report: Report = lambda message: None,
    progress: Progress = lambda done, total: None,
) -> Fetched:
    """Bring the file at `url` (http, https, file:// or a path) to `destination`, verified.

    The bytes gather in `<name>.part` and survive a kill; the file gets its name only when its digest, its size and
    (for .zip) its structure are right. Of two processes that fetch the same file one transfers and the other waits.
    report: gets the size before the first byte, and every wait. progress: (bytes here, bytes in all or None).
    Raises DownloadError with one readable message.
    """
    settings = settings or DownloadSettings()
    destination = Path(destination)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with _alone(destination, report):
            wanted = Wanted(destination.name, sha256.lower() if sha256 else None, expected_bytes)
            source = local_path(url)
            kept = _kept(destination, wanted, source is None, report)
            if kept:
                return kept
            part = destination.with_name(f"{destination.name}.part")
            if source is not None:
                return _bring(source, part, destination, wanted, report)
            return _download(url, part, destination, wanted, settings, report, progress)
    except OSError as error:
        raise DownloadError(f"{destination} cannot be written: {error.strerror or error}") from error


@dataclass(frozen=True)
class Wanted:
    """What the file must be; None where it is not known."""

    name: str
    sha256: str | None
    bytes: int | None

    def check_head(self, head: bytes, origin: str) -> None:
        """Recognise a page that came instead of an archive by its first bytes."""
        if self.name.lower().endswith(".zip") and not (head and b"PK".startswith(head[:2])):
            raise DownloadError(
                f"{origin} gave no zip archive but {'nothing' if not head else kind_of(head)}. Fetch the file by hand "
                f"where it needs a login, and give its path as the address"
            )

    def check(self, path: Path, origin: str) -> Fetched:
        """Verify a complete file. Raises DownloadError naming what differs."""
        with open(path, "rb") as stream:
            self.check_head(stream.read(1024), origin)
            stream.seek(0)
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        size = path.stat().st_size
        if self.bytes not in (None, size):
            raise DownloadError(f"{origin} gave {size:,} bytes; expected {self.bytes:,}")
        if self.sha256 not in (None, digest):
            raise DownloadError(f"{origin} gave a file with SHA-256 {digest}; expected {self.sha256}")
        if not self.sha256 and self.name.lower().endswith(".zip") and not zipfile.is_zipfile(path):
            raise DownloadError(f"{origin} gave a zip archive without its end: it was cut short at {size:,} bytes")
        return Fetched(path, size, digest)


def local_path(url: str) -> Path | None:
    """The path of a file:// address or a plain path; None for a web address."""
    if "://" not in url:
        return Path(url).expanduser()
    parts = urlsplit(url)
    if parts.scheme.lower() in ("http", "https"):
        return None
    if parts.scheme.lower() != "file" or parts.netloc not in ("", "localhost"):
        raise DownloadError(f"{shown_url(url)} cannot be fetched; addresses are https://, http://, file:// or paths")
    return Path(unquote(parts.path))


def shown_url(url: str) -> str:
    """A web address for messages and files: without user, password and query, which may hold secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def size_text(count: int) -> str:
    """Bytes as a person reads them: 73.4 GB."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def check_space(folder: Path, needed: int) -> None:
    """Raise DownloadError unless `needed` more bytes fit on the folder's disk."""
    free = shutil.disk_usage(folder).free
    if needed + SPARE_BYTES > free:
        raise DownloadError(f"{folder} needs {size_text(needed + SPARE_BYTES)} of free space, has {size_text(free)}")


@contextlib.contextmanager
def _alone(destination: Path, report: Report) -> Iterator[None]:
    """Keep other processes from fetching the same file; the lock falls with its process."""
    import filelock

    lock = filelock.FileLock(destination.with_name(f".{destination.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        report(f"another process is fetching {destination.name}; waiting for it")
        lock.acquire(poll_interval=0.1)
    try:
        yield
    finally:
        lock.release()


def _kept(destination: Path, wanted: Wanted, from_web: bool, report: Report) -> Fetched | None:
    """What is already there, if it is right. A local source is looked at again unless a digest vouches for the file."""
    if not destination.is_file() or not (from_web or wanted.sha256):
        return None
    try:
        return wanted.check(destination, str(destination))
    except DownloadError as error:
        report(f"{error}; it is fetched again")
        return None


def _download(
    url: str,
    part: Path,
    destination: Path,
    wanted: Wanted,
    settings: DownloadSettings,
    report: Report,
    progress: Progress,
) -> Fetched:
    from pipeline.sources.transfer import Partial, transfer

    partial = Partial(part, shown_url(url))
    while True:
        mixed = transfer(url, partial, wanted, settings, report, progress)
        try:
            fetched = wanted.check(part, shown_url(url))
        except DownloadError as error:
            partial.drop()
            if not mixed:
                raise
            # The pieces of several connections may not fit together: once more, from the first byte.
            report(f"{error}; it came in pieces and is fetched again from the start")
            continue
        _publish(part, destination)
        partial.drop()
        return Fetched(destination, fetched.bytes, fetched.sha256)


def _bring(source: Path, part: Path, destination: Path, wanted: Wanted, report: Report) -> Fetched:
    """Take a file of this machine: as a hard link where the disk allows, else as a copy."""
    if not source.is_file():
        raise DownloadError(f"{source} {'is not a file' if source.exists() else 'does not exist'}")
    size = source.stat().st_size
    report(f"{destination.name}: {size_text(size)} from {source}")
    if destination.exists() and source.samefile(destination):
        return wanted.check(destination, str(source))
    part.unlink(missing_ok=True)
    try:
        os.link(os.path.realpath(source), part)
    except OSError:
        check_space(part.parent, size)
        shutil.copyfile(source, part)
    try:
        fetched = wanted.check(part, str(source))
    except DownloadError:
        part.unlink()
        raise
    _publish(part, destination)
    return Fetched(destination, fetched.bytes, fetched.sha256)


def _publish(part: Path, destination: Path) -> None:
    """Flush to disk, then rename, so that a power cut leaves the whole file or none."""
    descriptor = os.open(part, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(part, destination)
    folder = os.open(destination.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
