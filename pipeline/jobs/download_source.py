"""Fetch one archive, verify it, and write down where it is; the archive itself is never a declared output."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline import files
from pipeline.jobs.context import open_context
from pipeline.progress import LOG, Progress
from pipeline.sources.errors import DownloadError

MEGABYTE = 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", type=Path, required=True, help="settings file of the download")
    parser.add_argument("--archive", required=True, help="name of the archive, without .zip")
    parser.add_argument("--made", type=Path, nargs="*", default=[], help="the archive, where the demo made it")
    parser.add_argument("--output", type=Path, required=True, help="pointer to write")
    parser.add_argument("--log", type=Path, help="log file")


def run(arguments: argparse.Namespace) -> None:
    from pipeline.sources.download import DownloadSettings, fetch, shown_url

    context = open_context(arguments.settings)
    settings = DownloadSettings(**context.runtime["download"])
    address = _address(arguments, context.work.settings)
    destination = Path(settings.folder) / context.work.settings["folder"] / f"{arguments.archive}.zip"
    bar = Bar(arguments.archive)
    try:
        fetched = fetch(
            address["url"], destination, address["sha256"], address["bytes"], settings, LOG.warning, bar.show
        )
    except DownloadError as problem:
        raise SystemExit(str(problem)) from None
    pointer = {"path": str(fetched.path), "bytes": fetched.bytes, "sha256": fetched.sha256}
    files.write_json(arguments.output, {**pointer, "url": shown_url(address["url"])})


def _address(arguments: argparse.Namespace, settings: dict) -> dict:
    """Where the archive is, its digest and its size. The demo publishes its digest beside the archive."""
    if arguments.made:
        archive = arguments.made[0]
        digest = archive.with_name(f"{archive.name}.sha256").read_text().split()[0]
        return {"url": archive.resolve().as_uri(), "sha256": digest, "bytes": archive.stat().st_size}
    return settings["archives"][arguments.archive]


class Bar:
    """Shows a transfer in megabytes."""

    def __init__(self, label: str) -> None:
        self._label, self._progress = label, None

    def show(self, done: int, total: int | None) -> None:
        if self._progress is None:
            self._progress = Progress(self._label, (total or done) // MEGABYTE, "MB", done // MEGABYTE)
        self._progress.advance(done // MEGABYTE - self._progress.done)
