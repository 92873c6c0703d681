"""`isomill store verify | gc | repair`: check every file, remove what nothing names, make damaged files again."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from pipeline import commands, runs
from pipeline.cli import records
from pipeline.cli.study import add_config_argument, read_plan
from pipeline.jobs.context import open_store
from pipeline.progress import Progress, start_log
from pipeline.store import DROPPED, Damaged, Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        choices=("verify", "gc", "repair"),
        help="verify: read every file and record and compare it with what it should be; gc: list what no record below "
        "results/ names, and delete it with --delete; repair: remove damaged files and records, and the records that "
        "name such files, so that the next run makes those shapes, and what stands on them, again",
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
    """Print what is damaged or missing, in the store and among the records; 1 where anything is, else 0."""
    broken = list(damaged(store))
    wrong = list(dict.fromkeys(records.problems()))
    missing = sorted(file for file in records.named_files() if not store.holds(file) and not store.dropped(file))
    for file in broken:
        print(f"damaged: {file}")
    for path, problem in wrong:
        print(f"record: {path} {problem}")
    for file in missing:
        print(f"missing: {file}")
    if not (broken or wrong or missing):
        print("every file is whole")
        return 0
    print(f"{len(broken)} files damaged, {len(missing)} missing, {len(wrong)} records not as they were written")
    repair = commands.isomill("store", "repair")
    print(f"The next run makes again what the records speak of; after `{repair}` it makes the files, too.")
    return 1


def collect(store: Store, arguments: argparse.Namespace) -> int:
    """List or delete what no ledger names.

    Rejections and notes of dropped files are kept: they are small, and save trying or making a shape again.
    """
    unreadable = [path for path in records.naming_records() if records.named_by(path) is None]
    if unreadable:
        repair = commands.isomill("store", "repair")
        raise SystemExit(f"error: {unreadable[0]} cannot be read; run `{repair}` first")
    named = records.named_files()
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
    """Remove damaged files, the records that name a file which is not whole, and records not as they were written."""
    broken = set(damaged(store))
    for entry in [e for e in store.list() if e.file in broken]:
        store.discard(entry)
    whole = {file for file in records.named_files() if _whole(store, file)}
    wrong = {path for path, _ in records.problems()}
    useless = {path for path in records.naming_records() if not whole.issuperset(records.named_by(path) or ())}
    for path in wrong | useless:
        path.unlink(missing_ok=True)
    for receipt in list(records.orphans()):
        receipt.unlink()
    count = len(wrong | useless)
    print(f"{len(broken)} damaged files and {count} records removed; run the same snakemake command again")
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
