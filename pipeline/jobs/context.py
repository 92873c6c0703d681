"""What every job shares: its log, its work and settings, the store, and the watch on the run that started it."""

from __future__ import annotations

import argparse
import os
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import files, progress, receipts, runs
from pipeline.jobs.machine import explained
from pipeline.jobs.work import Limits, Work, read_work
from pipeline.progress import LOG
from pipeline.sources.errors import SourceError
from pipeline.store import Damaged, Store


@dataclass(frozen=True)
class Context:
    """One job's surroundings. `runtime` holds what decides no result (`Plan.runtime`)."""

    work: Work
    runtime: dict[str, Any]
    store: Store
    limits: Limits

    @property
    def results(self) -> Path:
        return Path(self.runtime["results"])

    def timings(self, output: Path) -> Path:
        """Where the costs of what an output holds are written down, over all runs."""
        return self.results / "timings" / output.relative_to(self.results).with_suffix(".jsonl")


def open_context(settings: Path) -> Context:
    """What a job works with. Raises SystemExit for settings that no run has written."""
    if not settings.is_file():
        raise SystemExit(
            f"{settings} is missing: no experiment of this study needs this stage, so no run has written its settings"
        )
    work = read_work(settings)
    runtime = files.read_json(settings.parent / "runtime.json")
    return Context(work, runtime, open_store(runtime["store"]), Limits(**runtime["limits"]))


def open_store(settings: Mapping[str, Any]) -> Store:
    """The store of a configuration (`StoreConfig`)."""
    return Store(Path(settings["path"]).expanduser(), [Path(path).expanduser() for path in settings["shared"]])


def _sign(arguments: argparse.Namespace, found: Mapping[str, str]) -> None:
    """Write the receipt of a job that ended well. found: digests of its inputs when it began."""
    outputs = getattr(arguments, "receipt_of", ())  # a job started by hand may leave none
    if outputs:
        settings: Path = arguments.settings
        receipts.write(settings.parent.parent, settings.stem, found, outputs)


def run_job(arguments: argparse.Namespace, body: Callable[[argparse.Namespace], None]) -> int:
    """Run a job's body with its log; foreseen failures end in one message, others in a traceback and what to do."""
    # Threads that wait by spinning make everything slow as soon as another process wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    progress.start_log(None)
    try:
        progress.start_log(getattr(arguments, "log", None))
        runs.watch_run()
        found = receipts.digests_of(getattr(arguments, "receipt_from", ()))
        body(arguments)
        _sign(arguments, found)
    except (Damaged, SourceError, files.DamagedRecord) as problem:
        LOG.error("error: %s", problem)
        return 1
    except SystemExit as end:
        if isinstance(end.code, str):
            LOG.error("error: %s", end.code)
            return 1
        return end.code or 0
    except KeyboardInterrupt:
        LOG.error("stopped by Ctrl-C; what was finished is kept, and the same command goes on from here")
        return 130
    except Exception as error:
        words = explained(error) if isinstance(error, OSError) else None
        if words:
            LOG.error("error: %s", words)
            return 1
        LOG.error("%s", traceback.format_exc())
        LOG.error(
            "error: unexpected %s: %s\nNothing that was finished is lost; the same command tries again. If it happens "
            "again, please report it with this log.",
            type(error).__name__,
            error,
        )
        return 1
    return 0
