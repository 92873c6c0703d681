"""Write one category of the embedded demo as an archive, as a data set's owner would offer it."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline import files
from pipeline.jobs.context import open_context


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", type=Path, required=True, help="settings file of the demo")
    parser.add_argument("--category", required=True, help="synset of the category")
    parser.add_argument("--output", type=Path, required=True, help="archive to write")
    parser.add_argument("--digest", type=Path, required=True, help="its SHA-256, as published beside it")
    parser.add_argument("--log", type=Path, help="log file")


def run(arguments: argparse.Namespace) -> None:
    import hashlib

    from pipeline.sources import demo

    settings = demo.DemoSettings(**open_context(arguments.settings).work.settings["demo"])
    category = next(name for name, synset in demo.SYNSETS.items() if synset == arguments.category)
    content = demo.make_archive(category, settings)
    files.write_atomic(arguments.output, content)
    files.write_atomic(arguments.digest, f"{hashlib.sha256(content).hexdigest()}  {arguments.output.name}\n")
