"""The catalogue of a source and the members of every shard; made once, then kept up to date when a run starts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipeline import files, receipts
from pipeline.jobs.context import open_context
from pipeline.progress import LOG
from pipeline.sources import listing
from pipeline.sources.errors import SourceError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", type=Path, required=True, help="settings file of the listing")
    parser.add_argument("--archives", type=Path, nargs="*", default=[], help="pointers of fetched archives")
    parser.add_argument("--catalogue", type=Path, required=True, help="catalogue to write; the members go beside it")
    parser.add_argument("--log", type=Path, help="log file")


def run(arguments: argparse.Namespace) -> None:
    settings = open_context(arguments.settings).work.settings
    folder = archive_folder(arguments.archives)
    try:
        entries, memory = listing.list_source(settings["source"], folder, report=LOG.warning)
    except SourceError as problem:
        raise SystemExit(str(problem)) from None
    texts = listing.listing_files(entries, settings["shards"], settings["test_shards"])
    for name, text in texts.items():
        files.write_atomic(arguments.catalogue.parent / name, text)
    files.write_sealed(arguments.catalogue.parent / listing.MEMORY, memory)
    LOG.info("%d shapes, %d of them refused already", len(entries), sum(e.reason is not None for e in entries))


def archive_folder(pointers: list[Path]) -> Path:
    """The folder that the fetched archives lie in; every pointer names one of them."""
    folders = {Path(files.read_json(pointer)["path"]).parent for pointer in pointers}
    return folders.pop() if folders else Path()


def _remembered(folder: Path) -> Any:
    """What the last listing wrote down to make the next one cheap; None, so that all is read, where that is damaged."""
    try:
        return files.read_sealed(folder / listing.MEMORY)
    except (OSError, ValueError):
        return None


def relist(settings: dict[str, Any], results: Path, folder: Path, write: bool) -> tuple[int, int]:
    """Look at a source on disk again and rewrite the member files that changed. Returns (new, gone) shapes.

    folder: where the catalogue and the members lie, whole, below `results`. write: False looks only (a dry run).
    """
    from pipeline.sources.catalogue import read_catalogue

    entries, memory = listing.list_source(settings["source"], Path(), _remembered(folder))
    if entries is None:
        return 0, 0
    old = {(e.category, e.id) for e in read_catalogue((folder / listing.CATALOGUE).read_bytes().decode())}
    new = {(e.category, e.id) for e in entries}
    if write:
        texts = listing.listing_files(entries, settings["shards"], settings["test_shards"])
        changed = [folder / name for name, text in texts.items() if files.write_if_changed(folder / name, text)]
        if changed:
            receipts.renew(results, folder / listing.CATALOGUE, changed)
        files.write_sealed(folder / listing.MEMORY, memory)
    return len(new - old), len(old - new)
