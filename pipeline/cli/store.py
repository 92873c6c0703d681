"""`isomill store verify | gc | repair`: check every file, remove what nothing names, make damaged files again."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from pipeline import commands, ledger, runs
from pipeline.cli.study import add_config_argument, read_plan
from pipeline.files import read_json
from pipeline.jobs.context import open_store
from pipeline.progress import Progress, start_log
from pipeline.store import DROPPED, Damaged, Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        choices=("verify", "gc", "repair"),
        help="verify: read every file and compare it with its name; gc: list what no ledger below results/ names, "
        "and delete it with --delete; repair: remove damaged files and the ledgers that name them, so that the next "
        "run makes those shapes, and what stands on them, again",
    )
    parser.add_argument("--delete", action="store_true", help="gc: delete instead of listing")
    add_config_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    start_log(None)
    plan = read_plan(arguments.configfile)
    if arguments.action != "verify" and not runs.alone():
        raise SystemExit("error: a run is at work in this folder; wait until it has ended")
    store = open_store(plan.study.store.model_dump())
    return {"verify": verify, "gc": collect, "repair": repair}[arguments.action](store, arguments)


def damaged(store: Store) -> Iterator[str]:
    """Files of the store that do not hold what their names promise."""
    entries = list(store.list())
    progress = Progress("reading the store", len(entries), "files")
    for entry in entries:
        try:
            if entry.extension != DROPPED:  # a note, whose name promises another file's content
                store.get(entry.file)
        except Damaged:
            yield entry.file
        progress.advance()
    progress.close()


def verify(store: Store, arguments: argparse.Namespace) -> int:
    """Print what is damaged or missing; 1 where anything is, else 0."""
    files = [*damaged(store), *(str(path) for path in records() if named_by(path) is None)]
    for file in files:
        print(f"damaged: {file}")
    missing = sorted(file for file in named_files() if not store.holds(file) and not store.dropped(file))
    for file in missing:
        print(f"missing: {file}")
    print(f"{len(files)} damaged, {len(missing)} missing" if files or missing else "every file is whole")
    if files or missing:
        print(f"`{commands.isomill('store', 'repair')}` makes the next run remake them.")
    return 1 if files or missing else 0


def collect(store: Store, arguments: argparse.Namespace) -> int:
    """List or delete what no ledger names.

    Rejections and notes of dropped files are kept: they are small, and save trying or making a shape again.
    """
    unreadable = [path for path in records() if named_by(path) is None]
    if unreadable:
        repair = commands.isomill("store", "repair")
        raise SystemExit(f"error: {unreadable[0]} cannot be read; run `{repair}` first")
    named = named_files()
    unnamed = [e for e in store.list() if e.file not in named and e.extension not in ("rejected", DROPPED)]
    for entry in unnamed:
        if arguments.delete:
            store.discard(entry)
        else:
            print(f"{entry.size:>12,}  {entry.file}")
    verb = "deleted" if arguments.delete else "would be deleted (--delete does it)"
    print(f"{len(unnamed)} files, {sum(e.size for e in unnamed) / 2**20:,.1f} MB {verb}")
    if not arguments.delete:
        print("Only ledgers below results/ here were read; other folders that share this store may need these files.")
    return 0


def repair(store: Store, arguments: argparse.Namespace) -> int:
    """Remove damaged files, and the ledgers and checkpoints that name a file which is not whole."""
    broken = set(damaged(store))
    for entry in [e for e in store.list() if e.file in broken]:
        store.discard(entry)
    whole = {file for file in named_files() if _whole(store, file)}
    useless = [path for path in records() if (named := named_by(path)) is None or not whole.issuperset(named)]
    for path in useless:
        path.unlink()
    print(f"{len(broken)} damaged files and {len(useless)} ledgers removed; run the same snakemake command again")
    return 0


def _whole(store: Store, file: str) -> bool:
    """A file is there as its name promises, here or in a shared store, or was dropped on purpose."""
    if store.dropped(file):
        return True
    try:
        store.get(file)
    except Damaged:
        return False
    return True


def named_files() -> set[str]:
    """Files of the store that some ledger or checkpoint below results/ names."""
    return {file for path in records() for file in named_by(path) or ()}


def records() -> Iterator[Path]:
    """All ledgers and checkpoints below results/."""
    for pattern in ("data/**/*.jsonl", "meshes/**/*.jsonl", "evaluation/raw/**/*.jsonl", "training/*/checkpoint.json"):
        yield from sorted(Path("results").glob(f"*/{pattern}"))


def named_by(path: Path) -> list[str] | None:
    """Files of the store that one ledger or checkpoint names; None where it cannot be read."""
    try:
        if path.suffix == ".json":
            return [read_json(path)["file"]]
        return [row.file for row in ledger.read(path).rows.values() if row.accepted]
    except (ValueError, KeyError, TypeError):
        return None
