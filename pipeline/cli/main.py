"""`isomill …` = `python -m pipeline …`: the commands the workflow's rules call, and helpers for people."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import types
from pathlib import Path

from pipeline.environment import wrong_python

JOBS = {
    "make-demo-archive": "write one category of the embedded demo as an archive",
    "download-source": "fetch and verify one archive",
    "list-shapes": "list the shapes of the source and hash them into shards",
    "run-shard": "run one data stage over one shard",
    "check-rejected": "judge whether a stage rejected too many shapes",
    "train-model": "train one experiment",
    "fetch-weights": "take published weights in place of training",
    "encode-shapes": "export the codes of the test shapes",
    "generate-meshes": "reconstruct the test shapes of one experiment",
    "sample-shapes": "draw new shapes from a generator",
    "evaluate-samples": "compare drawn shapes with the test shapes",
    "evaluate-meshes": "measure reconstructed shapes",
    "evaluate-fields": "evaluate the fields of one experiment without meshes",
    "summarise": "join the measurements into tables",
    "drop-products": "remove the files of a data stage that everything has read",
    "make-report": "write the report",
    "check-tested": "judge whether the report compares anything",
    "record-provenance": "write the RO-Crate of the results",
}
HELPERS = {
    "eval": "compare meshes with their references, two files or two folders",
    "shape": "list every file of one shape",
    "plan": "show what the study consists of",
    "store": "verify, clean or repair the store",
    "statistics": "write every figure of every shape into one table, and show their ranges",
    "export": "write finished shapes in the formats of the original repositories",
    "interpolate": "write meshes between two shapes of a trained experiment, by their codes",
    "import-weights": "convert an original checkpoint, safely",
    "schema": "write the JSON schema of the configuration",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; gives the exit code."""
    try:
        return _main(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        return 130


def _main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="isomill",
        description="Compare neural implicit shape models on your meshes. The workflow itself runs as "
        "`snakemake --cores 8 eval_all`; these commands stand beside it.",
        epilog="The rules of the workflow call: " + ", ".join(JOBS) + ".",
    )
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    # Only the chosen command's module is loaded; the others lend their one line of help.
    chosen = next((word for word in argv if not word.startswith("-")), None)
    for name, description in {**HELPERS, **JOBS}.items():
        shown = {"help": description} if name in HELPERS else {}
        command = commands.add_parser(name, description=f"{description[0].upper()}{description[1:]}.", **shown)
        if name == chosen:
            module = _load(name)
            module.add_arguments(command)
            if name in JOBS:
                _add_receipt_arguments(command)
    arguments = parser.parse_args(argv)
    if arguments.command in HELPERS:
        return _to_the_end(module, arguments)
    from pipeline.jobs.context import run_job

    return run_job(arguments, module.run)


def _add_receipt_arguments(parser: argparse.ArgumentParser) -> None:
    """What every job of the workflow is told besides its own arguments: what its receipt names."""
    parser.add_argument("--receipt-from", type=Path, nargs="*", default=[], help="all inputs, for the receipt")
    parser.add_argument("--receipt-of", type=Path, nargs="*", default=[], help="all outputs, for the receipt")


def _to_the_end(module, arguments: argparse.Namespace) -> int:
    """Run a helper; where its reader goes away, as in `isomill shape … | head`, it just ends.

    A disk that is full or may not be written to is told in words.
    """
    try:
        code = module.run(arguments) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as problem:
        from pipeline.jobs.machine import explained

        words = explained(problem)
        if words is None:
            raise
        print(f"error: {words}", file=sys.stderr)
        return 1


def _load(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(_module(name))
    except ModuleNotFoundError as missing:
        raise SystemExit(f"error: {wrong_python(missing)}") from None


def _module(name: str) -> str:
    package = "pipeline.cli" if name in HELPERS else "pipeline.jobs"
    return f"{package}.{name.replace('-', '_')}"
