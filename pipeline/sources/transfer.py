"""Bytes over http into a partial file, through whatever a network does: cuts, stalls, refusals, changed files.

`requests` makes the connections, follows redirects and checks certificates. What it leaves open stands here: asking
for the missing rest only, and believing an answer only where it says the same file and the same place. (Of the
libraries at hand pooch has no resume, and the hub's `http_get` takes any 206 as the right one.)
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline import files
from pipeline.settings import Settings
from pipeline.sources.download import (
    DownloadSettings,
    Progress,
    Report,
    Wanted,
    check_space,
    shown_url,
    size_text,
)
from pipeline.sources.errors import DownloadError

if TYPE_CHECKING:
    import requests

CHUNK_BYTES = 2**18
STEP_BYTES = 2**16  # a try counts as progress when it brought this much, or a hundredth of a smaller file
PASSING = (408, 425, 429)  # with all 5xx: the same request may succeed later
LOOPBACK = ("localhost", "127.0.0.1", "::1")
FINAL = {
    401: "wants a login",
    403: "refuses access",
    404: "has no such file",
    410: "has no such file any more",
}


class Interrupted(Exception):
    """A try ended before the file was whole; another may get further. wait_s: what the server asked for."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Origin(Settings):
    """Which file the bytes in a partial file belong to; stands beside it as JSON."""

    url: str
    """Its address, without secrets."""

    etag: str | None = None
    """What the server calls this version of the file."""

    modified: str | None = None
    """When the server says it was changed."""

    size: int | None = None
    """Bytes of the whole file."""

    @property
    def validator(self) -> str | None:
        """What If-Range may carry: a strong ETag, else the date."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    def contradicts(self, other: Origin) -> bool:
        """True where both know something and it differs."""
        mine, theirs = self.model_dump(), other.model_dump()
        return any(None not in (mine[name], theirs[name]) and mine[name] != theirs[name] for name in mine)


class Partial:
    """`<name>.part` and, beside it, the origin of its bytes as JSON."""

    def __init__(self, path: Path, url: str) -> None:
        self.path, self.note, self.url = path, path.with_name(f"{path.name}.json"), url

    @property
    def bytes(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def origin(self) -> Origin | None:
        """Where the bytes are from; None where there are none or nobody knows."""
        try:
            origin = Origin.model_validate_json(self.note.read_bytes())
        except (OSError, ValueError):
            return None
        return origin if origin.url == self.url and self.path.is_file() else None

    def start(self, origin: Origin) -> None:
        """Forget the old bytes; those that follow are of `origin`."""
        self.drop()
        files.write_json(self.note, origin.model_dump())

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def transfer(
    url: str, partial: Partial, wanted: Wanted, settings: DownloadSettings, report: Report, progress: Progress
) -> bool:
    """Fill the partial file until the server has no more; True where its bytes came by more than one connection.

    Raises DownloadError where the server refuses for good, or where `retries` tries in a row bring nothing new.
    """
    import requests

    attempt = _Attempt(url, partial, wanted, settings, report, progress)
    best, tries = 0, 0
    with requests.Session() as session:
        session.headers.update({"User-Agent": "isomill", "Accept-Encoding": "identity"})
        while True:
            try:
                attempt.run(session)
                return attempt.mixed
            except Interrupted as interruption:
                grown = partial.bytes - best
                tries = 0 if grown >= min(STEP_BYTES, 1 + (attempt.size or 0) // 100) else tries + 1
                best = max(best, partial.bytes)
                _wait(interruption, tries, partial, settings, report)
            finally:
                if not partial.bytes:
                    partial.drop()


def _wait(interruption: Interrupted, tries: int, partial: Partial, settings: DownloadSettings, report: Report) -> None:
    """Sleep as long as the server asked, else longer after each vain try; not at all after one that got further."""
    if tries > settings.retries:
        raise DownloadError(
            f"{partial.url}: {interruption}; given up after {tries} tries without a new byte. The same command goes on "
            f"from {size_text(partial.bytes)}; or fetch the file by hand and give its path as the address"
        ) from interruption
    doubled = settings.backoff_s * 2.0 ** (tries - 1) * SystemRandom().uniform(0.5, 1.5) if tries else 0
    wait = interruption.wait_s if interruption.wait_s is not None else min(doubled, settings.longest_wait_s)
    if wait > settings.longest_wait_s:
        raise DownloadError(f"{partial.url}: {interruption}; the server asks to come back in {wait:.0f} s")
    again = f"trying again in {wait:.1f} s ({tries} of {settings.retries})" if tries else "going on"
    report(f"{partial.url}: {interruption}; {again}")
    time.sleep(wait)


class _Attempt:
    """Everything that stays the same from one connection to the next."""

    def __init__(
        self,
        url: str,
        partial: Partial,
        wanted: Wanted,
        settings: DownloadSettings,
        report: Report,
        progress: Progress,
    ) -> None:
        self.url, self.partial, self.wanted, self.settings = url, partial, wanted, settings
        self.report, self.progress = report, progress
        self.size: int | None = wanted.bytes
        self.resumable, self.announced, self.mixed = True, False, partial.bytes > 0

    def run(self, session: requests.Session) -> None:
        """One connection. Returns when the file is whole; raises Interrupted or DownloadError."""
        import requests
        import urllib3

        _refuse_plain_http(self.url, self.wanted)
        origin = self._resumed()
        if origin and origin.size and self.partial.bytes == origin.size:
            return
        timeout = (self.settings.timeout_s, self.settings.timeout_s)
        try:
            with session.get(self.url, headers=self._headers(origin), stream=True, timeout=timeout) as response:
                _refuse_plain_http(response.url, self.wanted)
                start = self._accept(response, origin)
                if start is not None:
                    self._receive(response, start)
        except requests.exceptions.SSLError as error:
            raise DownloadError(f"{self.partial.url}: the certificate is not trusted ({error})") from error
        except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
            raise Interrupted(_plain(error)) from error
        except requests.RequestException as error:
            raise DownloadError(f"{self.partial.url} cannot be fetched: {_plain(error)}") from error

    def _resumed(self) -> Origin | None:
        """The origin of bytes that may be continued; what may not is dropped."""
        origin = self.partial.origin()
        trusted = origin and (origin.validator or self.wanted.sha256)
        if not trusted or not self.resumable or self.partial.bytes > (origin.size or self.partial.bytes):
            self.partial.drop()
            return None
        return origin if self.partial.bytes else None

    def _headers(self, origin: Origin | None) -> dict[str, str]:
        if origin is None:
            return {}
        headers = {"Range": f"bytes={self.partial.bytes}-"}
        return headers | ({"If-Range": origin.validator} if origin.validator else {})

    def _accept(self, response: requests.Response, origin: Origin | None) -> int | None:
        """The place where the body of an answer belongs; None where the file is whole already."""
        code, have = response.status_code, self.partial.bytes if origin else 0
        if code in PASSING or code >= 500:
            raise Interrupted(f"the server answers {code} {response.reason}", _retry_after(response))
        if code == 416 and have:
            if _content_range(response)[1] == have:
                return None
            self.partial.drop()
            raise Interrupted("the server has no such part; starting over")
        if code == 206 and origin:
            return self._continue(response, origin, have)
        if code != 200:
            raise DownloadError(f"{self.partial.url} {FINAL.get(code, 'cannot be fetched')} ({code} {response.reason})")
        told = self._origin_of(response)
        if have and origin:
            cause = "the file changed on the server" if told.contradicts(origin) else "the server sends no parts"
            self.report(f"{self.partial.url}: {cause}; starting over")
        self._announce(told.size, 0)
        self.partial.start(told)
        return 0

    def _continue(self, response: requests.Response, origin: Origin, have: int) -> int:
        """Take the rest of a file, if it is the rest and of the same file."""
        first, total = _content_range(response)
        told = self._origin_of(response).model_copy(update={"size": total})
        if first != have or response.headers.get("Content-Encoding", "identity") != "identity":
            self.resumable = False
            self.partial.drop()
            raise Interrupted(f"the server sends bytes from {first} on, asked for {have}; starting over")
        if told.contradicts(origin):
            self.partial.drop()
            raise Interrupted("the file changed on the server; starting over")
        self._announce(total or origin.size, have)
        return have

    def _origin_of(self, response: requests.Response) -> Origin:
        headers = response.headers
        length = headers.get("Content-Length", "")
        if headers.get("Content-Encoding", "identity") != "identity":
            self.resumable, length = False, ""  # the length is that of the encoded bytes
        size = int(length) if length.isdigit() else None
        return Origin(url=self.partial.url, etag=headers.get("ETag"), modified=headers.get("Last-Modified"), size=size)

    def _announce(self, size: int | None, have: int) -> None:
        """Say how much is coming, and refuse what cannot be right or cannot be kept, before the first byte."""
        if None not in (size, self.wanted.bytes) and size != self.wanted.bytes:
            raise DownloadError(f"{self.partial.url} has {size:,} bytes; expected {self.wanted.bytes:,}")
        self.size = size or self.wanted.bytes
        if not self.announced:
            known = size_text(self.size) if self.size else "size unknown"
            here = f", {size_text(have)} of it already here" if have else ""
            self.report(f"{self.wanted.name}: {known} from {urlsplit(self.url).hostname}{here}")
            self.announced = True
        check_space(self.partial.path.parent, (self.size or 0) - have)

    def _receive(self, response: requests.Response, start: int) -> None:
        """Write a body at `start`. Raises Interrupted where it ends early or comes too slowly."""
        position, since, mark = start, time.monotonic(), start
        self.mixed = start > 0
        with open(self.partial.path, "r+b" if start else "wb") as stream:
            stream.seek(start)
            while chunk := response.raw.read1(CHUNK_BYTES, decode_content=True):
                if position == 0:  # a page instead of an archive is known before anything is kept
                    self.wanted.check_head(chunk, self.partial.url)
                position += len(chunk)
                if position > (self.size or position):
                    self.partial.drop()
                    raise DownloadError(f"{self.partial.url} sends more than the {self.size:,} bytes it announced")
                stream.write(chunk)
                self.progress(position, self.size)
                if time.monotonic() - since > self.settings.timeout_s:
                    rate = (position - mark) / (time.monotonic() - since)
                    if rate < self.settings.slowest_bytes_per_s:
                        raise Interrupted(f"only {rate:.0f} bytes per second come")
                    since, mark = time.monotonic(), position
        if self.size is not None and position < self.size:
            raise Interrupted(f"the connection ended at {position:,} of {self.size:,} bytes")


def _content_range(response: requests.Response) -> tuple[int | None, int | None]:
    """First byte and total size that a Content-Range header names; None for what it does not."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    first, total = match.groups() if match else (None, None)
    return (int(first) if first else None), (int(total) if total and total != "*" else None)


def _retry_after(response: requests.Response) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date."""
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    value = response.headers.get("Retry-After")
    try:
        return Retry().parse_retry_after(value) if value else None
    except InvalidHeader:
        return None


def _refuse_plain_http(url: str, wanted: Wanted) -> None:
    """Without encryption anybody on the way could change the file, so only a known digest makes it acceptable."""
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in LOOPBACK and not wanted.sha256:
        raise DownloadError(f"{shown_url(url)} is not encrypted; give the file's sha256, or an https:// address")


def _plain(error: Any) -> str:
    """The innermost words of a chain of library errors, without addresses."""
    while getattr(error, "args", ()) and isinstance(error.args[-1], Exception):
        error = error.args[-1]
    error = getattr(error, "reason", None) or error
    return f"{type(error).__name__}: {str(error).rpartition('>: ')[2] or 'no details'}"[:200]
