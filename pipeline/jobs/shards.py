"""Map one stage over the shapes of a shard: skip what the store has, make the rest in worker processes.

A shape that takes too long, needs too much memory or crashes native code costs itself only. SIGTERM, SIGINT and
SIGUSR1 finish the shapes in flight and leave; a kill loses at most those.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import files, ledger
from pipeline.jobs.at_work import digests_of
from pipeline.jobs.machine import Memory, memory_of_job
from pipeline.jobs.pool import Pool
from pipeline.jobs.work import Limits, Work, source_values, stored_row
from pipeline.jobs.workers import STOPPING
from pipeline.ledger import Row
from pipeline.progress import LOG, Progress
from pipeline.store import Store


class Stopped(SystemExit):
    """The job was asked to stop; what is finished is kept."""


class StopRequest:
    """Remembers that a signal asked this process to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None
        for number in STOPPING:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        self.signal = self.signal or number


# One shape's inputs: argument name → (row, ledger it stands in), or for raw meshes the line of the member file.
Inputs = Mapping[str, tuple[Row, str]]


def map_shapes(
    work: Work,
    shapes: Mapping[str, Inputs | dict[str, Any]],
    store: Store,
    limits: Limits,
    workers: int,
    timings: Path,
    label: str,
    memory: Memory | None = None,
) -> dict[str, Row]:
    """Rows of all `shapes`, in any order. Raises Stopped after a signal, Damaged where the store needs a repair, and
    SystemExit where the machine did not let some shapes be made; the others are in the store by then.

    workers: as many processes at the most as fit into `memory`, which is what the job may use in all.
    timings: JSON lines, one for every shape that was computed, appended as it ends; it survives kills.
    """
    stop = StopRequest()
    rows: dict[str, Row] = {}
    waiting: dict[str, str] = {}
    store.refresh()
    for shape in sorted(shapes):
        row, key = settled(work, shape, shapes[shape], store)
        if row is None:
            waiting[shape] = key
        else:
            rows[shape] = row
    LOG.info("%s: %d shapes, %d of them settled already", label, len(shapes), len(rows))
    if waiting:
        pool = Pool(work, store, limits, min(workers, len(waiting)), memory or memory_of_job())
        progress = Progress(label, len(shapes), done=len(rows))
        try:
            for row, cost in pool.run(waiting, shapes, stop):
                rows[row.shape] = row
                files.append_line(timings, {"shape": row.shape, "status": row.status, **cost})
                progress.advance(note=_note(rows))
        finally:
            progress.close()
        if pool.failures:
            raise SystemExit(pool.failed_words(len(rows)))
    if stop.signal and len(rows) < len(shapes):
        LOG.warning(
            "%s was asked to stop (%s): %d of %d shapes are done and kept; the same command goes on from here",
            label,
            signal.Signals(stop.signal).name,
            len(rows),
            len(shapes),
        )
        raise Stopped(128 + stop.signal)
    return rows


def settled(work: Work, shape: str, inputs: Any, store: Store) -> tuple[Row | None, str]:
    """The row of a shape that needs no work, and its key: rejected before, or in the store already."""
    from pipeline.arrays import Rejected

    if work.reads_source:
        try:
            digests = digests_of(source_values(inputs, work.stage))
        except Rejected as reason:
            return Row(shape, "rejected", reason=str(reason), stage=work.instance), ""
    else:
        rejected = next((row for row, _ in inputs.values() if not row.accepted), None)
        if rejected is not None:
            return Row(shape, "rejected", reason=rejected.reason, stage=rejected.stage), ""
        digests = {name: row.digest for name, (row, _) in inputs.items()}
    key = work.key(shape, digests)
    return stored_row(work, shape, key, store), key


def _note(rows: Mapping[str, Row]) -> str:
    rejected = sum(not row.accepted for row in rows.values())
    return f"{rejected} rejected" if rejected else ""


def inputs_of(paths: Mapping[str, list[str]]) -> dict[str, Inputs]:
    """Shape → its rows in the ledgers of each argument, for all shapes of the first argument.

    Raises SystemExit where a ledger lacks a shape: then the member files changed while the workflow ran.
    """
    tables: dict[str, dict[str, tuple[Row, str]]] = {}
    for argument, ledgers in paths.items():
        tables[argument] = {s: (row, str(path)) for path in ledgers for s, row in ledger.read(Path(path)).rows.items()}
    wanted = list(next(iter(tables.values())))
    missing = {argument: sorted(set(wanted) - set(table)) for argument, table in tables.items()}
    if any(missing.values()):
        argument, gone = next((a, m) for a, m in missing.items() if m)
        raise SystemExit(
            f"{', '.join(paths[argument])} lacks {gone[0]} ({len(gone)} in all); run the same command again"
        )
    return {shape: {argument: table[shape] for argument, table in tables.items()} for shape in wanted}
