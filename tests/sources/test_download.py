"""Downloads through every fault of a network, against a server on this machine."""

import contextlib
import hashlib
import random
import subprocess
import sys
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.sources import download
from pipeline.sources.download import DownloadSettings, fetch, local_path, shown_url, size_text
from pipeline.sources.errors import DownloadError
from tests.sources.zips import TETRAHEDRON, write_zip

CONTENT = random.Random(7).randbytes(400_000)
SHA = hashlib.sha256(CONTENT).hexdigest()
QUICK = DownloadSettings(timeout_s=0.4, backoff_s=0.01, retries=4)


class Server(ThreadingHTTPServer):
    """Serves `content` with ranges; `script` holds one behaviour per request, the last one for all further ones."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag, self.script = CONTENT, '"one"', [plain]
        self.requests: list[dict] = []
        self.sent = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/folder/file.bin"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        behaviour = server.script[min(len(server.requests), len(server.script) - 1)]
        server.requests.append(dict(self.headers))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            behaviour(self, server.content)
        self.close_connection = True

    def answer(self, code, body=b"", **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.send(body)

    def send(self, body):
        self.wfile.write(body)
        self.wfile.flush()
        self.server.sent += len(body)

    def log_message(self, *_):
        pass

    @property
    def asked(self):
        """First byte of the Range header, or None; None as well where If-Range names another file."""
        if self.headers.get("If-Range") not in (None, self.server.etag):
            return None
        value = self.headers.get("Range")
        return int(value.removeprefix("bytes=").rstrip("-")) if value else None


def plain(handler, content, limit=None, **headers):
    """A well-behaved server; `limit` cuts the connection after so many bytes."""
    first = handler.asked
    headers = {"ETag": handler.server.etag} | headers
    if first is None:
        handler.answer(200, content[:limit], Content_Length=len(content), **headers)
    elif first >= len(content):
        handler.answer(416, Content_Range=f"bytes */{len(content)}")
    else:
        part = content[first:]
        place = f"bytes {first}-{len(content) - 1}/{len(content)}"
        handler.answer(206, part[:limit], Content_Length=len(part), Content_Range=place, **headers)


def cut(limit):
    return lambda handler, content: plain(handler, content, limit)


def whole(handler, content, limit=None):
    """A server that knows no ranges."""
    handler.answer(200, content[:limit], Content_Length=len(content), ETag=handler.server.etag)


def status(code, **headers):
    return lambda handler, content: handler.answer(code, b"busy", Content_Length=4, **headers)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def got(server, tmp_path, sha=SHA, settings=QUICK, **others):
    fetched = fetch(server.url, tmp_path / "file.bin", sha, settings=settings, **others)
    assert fetched.path.read_bytes() == server.content
    assert (fetched.bytes, fetched.sha256) == (len(server.content), hashlib.sha256(server.content).hexdigest())
    assert {path.name for path in tmp_path.iterdir()} == {"file.bin", ".file.bin.lock"}, "something is left over"


def interrupted(server, tmp_path, sha=SHA, script=None):
    """Leave a partial file behind, as a killed process does."""
    server.script = script or [cut(150_000), status(503)]
    with pytest.raises(DownloadError, match="given up"):
        fetch(server.url, tmp_path / "file.bin", sha, settings=QUICK)
    assert (tmp_path / "file.bin.part").stat().st_size == 150_000
    assert not (tmp_path / "file.bin").exists()
    server.script, server.requests = [plain], []


def test_a_file_arrives_and_its_size_is_said_before_the_first_byte(server, tmp_path):
    events = []
    got(server, tmp_path, report=events.append, progress=lambda done, total: events.append((done, total)))
    assert events[0] == "file.bin: 400.0 kB from 127.0.0.1"
    assert events[-1] == (400_000, 400_000)
    assert all(isinstance(event, tuple) for event in events[1:])


def test_what_is_there_and_right_is_not_fetched_again(server, tmp_path):
    got(server, tmp_path)
    got(server, tmp_path)
    assert len(server.requests) == 1
    (tmp_path / "file.bin").write_bytes(CONTENT[:-1] + b"!")
    got(server, tmp_path)
    assert len(server.requests) == 2


def test_d1_fifty_cuts_transfer_hardly_more_than_the_file(server, tmp_path):
    chance = random.Random(1)
    server.script = [cut(chance.randint(5_000, 9_000)) for _ in range(50)] + [plain]
    got(server, tmp_path)
    assert len(server.requests) == 51
    assert server.sent <= 1.1 * len(CONTENT)


def test_d1_the_next_command_goes_on_where_the_last_one_was_cut(server, tmp_path):
    interrupted(server, tmp_path)
    said = []
    got(server, tmp_path, report=said.append)
    assert server.requests[0]["Range"] == "bytes=150000-"
    assert server.requests[0]["If-Range"] == '"one"'
    assert said == ["file.bin: 400.0 kB from 127.0.0.1, 150.0 kB of it already here"]


def test_d2_a_whole_file_instead_of_the_rest_is_never_appended(server, tmp_path):
    interrupted(server, tmp_path)
    server.script = [whole]
    said = []
    got(server, tmp_path, report=said.append)
    assert "sends no parts; starting over" in said[0]


@pytest.mark.parametrize("shift", [-1000, 1000])
@pytest.mark.parametrize("sha", [SHA, None])
def test_d3_a_part_from_another_place_is_not_used(server, tmp_path, shift, sha):
    def shifted(handler, content):
        first = handler.asked + shift
        place = f"bytes {first}-{len(content) - 1}/{len(content)}"
        handler.answer(206, content[first:], Content_Length=len(content) - first, Content_Range=place, ETag='"one"')

    interrupted(server, tmp_path)
    server.script = [shifted, plain]
    got(server, tmp_path, sha)
    assert "Range" not in server.requests[1]


def test_d4_a_complete_partial_is_finished_by_its_digest(server, tmp_path):
    interrupted(server, tmp_path)
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    got(server, tmp_path)
    assert server.requests == []


def test_d4_416_for_a_complete_partial_of_unknown_size(server, tmp_path):
    def unsized(handler, content):
        handler.send_response(200)
        handler.send_header("ETag", '"one"')
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n" % len(content) + content + b"\r\n")  # and no last chunk

    server.script = [unsized, plain]
    Handler.protocol_version = "HTTP/1.1"
    try:
        got(server, tmp_path)
    finally:
        Handler.protocol_version = "HTTP/1.0"
    assert server.requests[1]["Range"] == "bytes=400000-"


def test_d3_a_server_that_lied_about_places_is_not_asked_for_parts_again(server, tmp_path):
    def from_the_start(handler, content):
        place = f"bytes 0-{len(content) - 1}/{len(content)}"
        handler.answer(206, content, Content_Length=len(content), Content_Range=place, ETag='"one"')

    interrupted(server, tmp_path)
    server.script = [from_the_start, cut(200_000), plain]
    got(server, tmp_path)
    assert "Range" not in server.requests[2]


def test_d4_416_because_the_file_shrank_starts_over(server, tmp_path):
    interrupted(server, tmp_path, sha=None)
    server.content = CONTENT[:100_000]
    got(server, tmp_path, sha=None)


def test_d4_a_partial_longer_than_the_file_is_not_continued(server, tmp_path):
    interrupted(server, tmp_path)
    (tmp_path / "file.bin.part").write_bytes(CONTENT + b"more")
    got(server, tmp_path)
    assert "Range" not in server.requests[0]


@pytest.mark.parametrize("wrong", [bytes(400_000), bytes(150_000)])
def test_d4_wrong_partials_are_replaced(server, tmp_path, wrong):
    interrupted(server, tmp_path)
    (tmp_path / "file.bin.part").write_bytes(wrong)
    got(server, tmp_path)


@pytest.mark.parametrize("note", ["", "[]", '{"url": 1}', '{"url": "x", "size": "big"}'])
def test_d4_a_partial_of_unknown_origin_is_not_continued(server, tmp_path, note):
    interrupted(server, tmp_path)
    (tmp_path / "file.bin.part.json").write_text(note)
    got(server, tmp_path)
    assert "Range" not in server.requests[0]


@pytest.mark.parametrize("respects_if_range", [True, False])
def test_d5_a_file_changed_on_the_server_is_fetched_from_the_start(server, tmp_path, respects_if_range):
    interrupted(server, tmp_path, sha=None)
    server.content, server.etag = CONTENT[::-1] + b"longer", '"two"'

    def careless(handler, content):
        handler.headers.__delitem__("If-Range")
        plain(handler, content)

    server.script = [plain if respects_if_range else careless]
    said = []
    got(server, tmp_path, sha=None, report=said.append)
    assert any("the file changed on the server; starting over" in line for line in said)


def test_d5_without_a_validator_or_a_digest_nothing_is_continued(server, tmp_path):
    def nameless(limit):
        return lambda handler, content: handler.answer(200, content[:limit], Content_Length=len(content))

    server.script = [nameless(150_000), nameless(None)]
    got(server, tmp_path, sha=None)
    assert "Range" not in server.requests[1]


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_d6_passing_refusals_are_waited_out(server, tmp_path, code):
    server.script = [status(code), status(code), plain]
    said = []
    got(server, tmp_path, report=said.append)
    assert f"the server answers {code}" in said[0] and "trying again in" in said[0] and "(1 of 4)" in said[0]


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_d6_the_server_says_how_long_to_wait(server, tmp_path, form):
    begin = time.time()
    server.script = [status(429, Retry_After="1" if form == "seconds" else formatdate(begin + 2, usegmt=True)), plain]
    got(server, tmp_path)
    assert 0.9 < time.time() - begin < 4


def test_d6_a_wait_that_is_too_long_stops_with_its_length(server, tmp_path):
    server.script = [status(503, Retry_After="7200")]
    with pytest.raises(DownloadError, match="come back in 7200 s"):
        got(server, tmp_path)


def test_d6_refusals_before_a_wrong_file_do_not_make_it_come_twice(server, tmp_path):
    server.script = [status(503), plain]
    with pytest.raises(DownloadError, match="SHA-256"):
        fetch(server.url, tmp_path / "file.bin", "0" * 64, settings=QUICK)
    assert len(server.requests) == 2


def test_d6_the_number_of_tries_is_bounded(server, tmp_path):
    server.script = [status(500)]
    with pytest.raises(DownloadError, match="given up after 5 tries"):
        got(server, tmp_path)
    assert len(server.requests) == QUICK.retries + 1


def test_d6_a_hanging_connection_is_given_up_and_made_anew(server, tmp_path):
    def hang(handler, content):
        plain(handler, content, 100_000)
        time.sleep(1.5)

    server.script = [hang, plain]
    got(server, tmp_path)
    assert server.requests[1]["Range"] == "bytes=100000-"


def test_d6_a_drip_is_given_up_and_made_anew(server, tmp_path):
    def drip(handler, content):
        plain(handler, content, 1)
        for byte in content[1:60]:
            handler.send(bytes([byte]))
            time.sleep(0.03)

    server.script = [drip, plain]
    said = []
    got(server, tmp_path, report=said.append)
    assert any("bytes per second" in line for line in said)


@pytest.mark.parametrize(
    ("code", "words"), [(401, "wants a login"), (403, "refuses"), (404, "has no such file"), (418, "418")]
)
def test_d7_final_refusals_are_not_repeated(server, tmp_path, code, words):
    server.script = [status(code)]
    with pytest.raises(DownloadError, match=words):
        got(server, tmp_path)
    assert len(server.requests) == 1


def test_d9_a_page_instead_of_the_archive_is_recognised(server, tmp_path):
    page = b"<!DOCTYPE html><html><head><title>Quota exceeded</title></head></html>" * 50
    server.script = [lambda handler, content: handler.answer(200, page, Content_Length=len(page))]
    with pytest.raises(DownloadError, match="no zip archive but an HTML page titled 'Quota exceeded'"):
        fetch(server.url, tmp_path / "a.zip", settings=QUICK)
    assert {path.name for path in tmp_path.iterdir()} == {".a.zip.lock"}


def test_d10_redirects_are_followed(server, tmp_path):
    server.script = [status(302, Location=server.url + "2"), plain]
    got(server, tmp_path)


def test_d9_the_first_bytes_of_an_archive_may_come_one_by_one(server, tmp_path):
    def slow(handler, content):
        handler.send_response(200)
        handler.end_headers()
        for place in range(3):
            handler.send(content[place : place + 1])
            time.sleep(0.05)
        handler.send(content[3:])

    server.content = write_zip(tmp_path / "whole.zip", {"x.obj": TETRAHEDRON}).read_bytes()
    server.script = [slow]
    assert fetch(server.url, tmp_path / "a.zip", settings=QUICK).path.read_bytes() == server.content


@pytest.mark.parametrize("sha", [SHA, None])
def test_d11_without_a_length_the_digest_decides(server, tmp_path, sha):
    server.script = [lambda handler, content: handler.answer(200, content)]
    said = []
    got(server, tmp_path, sha, report=said.append)
    assert "size unknown" in said[0]


def test_d11_a_cut_without_a_length_is_found_by_the_digest_or_by_the_archive(server, tmp_path):
    server.content = write_zip(tmp_path / "whole.zip", {"x.obj": TETRAHEDRON}).read_bytes()
    server.script = [lambda handler, content: handler.answer(200, content[:-5])]
    with pytest.raises(DownloadError, match="SHA-256"):
        fetch(server.url, tmp_path / "a.zip", SHA, settings=QUICK)
    with pytest.raises(DownloadError, match="without its end"):
        fetch(server.url, tmp_path / "a.zip", settings=QUICK)
    assert not list(tmp_path.glob("a.zip*"))


def test_d11_a_cut_without_a_length_is_found_by_the_expected_size(server, tmp_path):
    server.script = [lambda handler, content: handler.answer(200, content[:100_000], ETag='"one"'), plain]
    got(server, tmp_path, None, expected_bytes=len(CONTENT))
    assert server.requests[1]["Range"] == "bytes=100000-"


def test_d11_an_endless_body_stops_at_the_expected_size(server, tmp_path):
    server.script = [lambda handler, content: handler.answer(200, content * 3)]
    with pytest.raises(DownloadError, match="more than the 400,000 bytes"):
        fetch(server.url, tmp_path / "file.bin", None, len(CONTENT), QUICK)
    assert {path.name for path in tmp_path.iterdir()} == {".file.bin.lock"}


def test_d11_encoded_transfers_are_decoded(server, tmp_path):
    import gzip

    packed = gzip.compress(CONTENT)
    server.script = [
        lambda handler, content: handler.answer(200, packed, Content_Length=len(packed), Content_Encoding="gzip")
    ]
    got(server, tmp_path)


def test_d11_a_length_that_is_too_large_ends_with_the_right_file(server, tmp_path):
    def boasting(handler, content):
        handler.answer(200, content, Content_Length=len(content) + 10, ETag='"one"')

    server.script = [boasting, plain]
    got(server, tmp_path)


def test_d12_of_two_processes_one_transfers_and_the_other_waits(server, tmp_path):
    def slow(handler, content):
        time.sleep(1)
        plain(handler, content)

    server.script = [slow]
    code = (
        "import sys; from pathlib import Path; from pipeline.sources.download import fetch\n"
        "print(fetch(sys.argv[1], Path(sys.argv[2]), sys.argv[3], report=lambda m: print(m)).sha256)"
    )
    command = [sys.executable, "-c", code, server.url, str(tmp_path / "file.bin"), SHA]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) for _ in range(2)
    ]
    outputs = [process.communicate(timeout=20)[0] for process in processes]
    assert [output.split()[-1] for output in outputs] == [SHA, SHA]
    assert len(server.requests) == 1
    assert sum("another process is fetching file.bin" in output for output in outputs) <= 1


def test_d14_without_a_network_the_message_says_what_to_do(server, tmp_path):
    url = server.url.replace(str(server.server_port), "9")
    with pytest.raises(DownloadError, match=r"refused.*fetch the file by hand and give its path"):
        fetch(url, tmp_path / "file.bin", settings=QUICK)


def test_a_wrong_digest_is_refused_and_nothing_is_kept(server, tmp_path):
    with pytest.raises(DownloadError, match=f"SHA-256 {SHA}; expected {'0' * 64}"):
        fetch(server.url, tmp_path / "file.bin", "0" * 64, settings=QUICK)
    assert {path.name for path in tmp_path.iterdir()} == {".file.bin.lock"}
    assert len(server.requests) == 1


def test_an_announced_size_that_is_not_the_expected_one_stops_before_the_body(server, tmp_path):
    seen = []
    with pytest.raises(DownloadError, match=r"has 400,000 bytes; expected 5"):
        fetch(server.url, tmp_path / "file.bin", None, 5, QUICK, progress=lambda *row: seen.append(row))
    assert seen == []


def test_a_full_disk_is_told_before_the_body(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "SPARE_BYTES", 2**60)
    with pytest.raises(DownloadError, match=r"needs .* of free space, has"):
        got(server, tmp_path)


def test_plain_http_from_elsewhere_needs_a_digest(tmp_path):
    with pytest.raises(DownloadError, match="not encrypted"):
        fetch("http://example.org/a.zip", tmp_path / "a.zip", settings=QUICK)


def test_secrets_of_an_address_are_in_no_message_and_no_file(server, tmp_path):
    url = server.url.replace("http://", "http://user:hf_secret@") + "?token=hf_secret"
    server.script = [cut(1000), status(503)]
    said = []
    with pytest.raises(DownloadError) as error:
        fetch(url, tmp_path / "file.bin", settings=QUICK, report=said.append)
    notes = [path.read_bytes() for path in tmp_path.iterdir()]
    assert "hf_secret" not in "".join([*said, str(error.value)])
    assert len(notes) == 3 and not any(b"hf_secret" in note for note in notes)


@pytest.mark.parametrize("form", [str, lambda path: path.as_uri()])
def test_files_of_this_machine_are_taken_with_verification(tmp_path, form):
    source = tmp_path / "brought by hand.bin"
    source.write_bytes(CONTENT)
    said = []
    fetched = fetch(form(source), tmp_path / "kept/file.bin", SHA, len(CONTENT), report=said.append)
    assert fetched.path.read_bytes() == CONTENT and source.read_bytes() == CONTENT
    assert said == [f"file.bin: 400.0 kB from {source}"]
    assert fetch(str(source), fetched.path) == fetched  # a second time, now as a hard link of itself
    with pytest.raises(DownloadError, match="expected 0000"):
        fetch(str(source), tmp_path / "kept/other.bin", "0" * 64)
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"file.bin", ".file.bin.lock", ".other.bin.lock"}


def test_a_changed_local_file_replaces_the_one_kept(tmp_path):
    source, kept = tmp_path / "a.bin", tmp_path / "kept.bin"
    source.write_bytes(b"one")
    fetch(str(source), kept)
    source.unlink()
    source.write_bytes(b"two")
    assert fetch(str(source), kept).path.read_bytes() == b"two"


def test_where_links_are_impossible_the_file_is_copied(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(download.os, "link", refuse)
    (tmp_path / "a.bin").write_bytes(CONTENT)
    fetched = fetch(str(tmp_path / "a.bin"), tmp_path / "b.bin", SHA)
    assert fetched.path.read_bytes() == CONTENT
    assert fetched.path.stat().st_ino != (tmp_path / "a.bin").stat().st_ino


def test_local_mistakes_have_messages(tmp_path):
    for url, words in (
        (str(tmp_path / "absent"), "does not exist"),
        (str(tmp_path), "is not a file"),
        ("ftp://x/y.zip", "cannot be fetched"),
        ("file://elsewhere/y.zip", "cannot be fetched"),
    ):
        with pytest.raises(DownloadError, match=words):
            fetch(url, tmp_path / "out.bin")
    (tmp_path / "page.zip").write_bytes(b"<html></html>")
    with pytest.raises(DownloadError, match="HTML page"):
        fetch(str(tmp_path / "page.zip"), tmp_path / "out.zip")


def test_addresses_and_sizes_in_words():
    assert local_path("file:///a%20b/c.zip") == Path("/a b/c.zip")
    assert local_path("https://x/y") is None
    assert shown_url("https://u:p@host:8080/a/b?sig=1#f") == "https://host:8080/a/b"
    assert [size_text(n) for n in (999, 73_400_000_000, 5 * 10**15)] == ["999 bytes", "73.4 GB", "5000.0 TB"]
