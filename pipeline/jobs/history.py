"""The course of a finished training: its learning curve and notes, kept beside the weights and not in them.

Weights are addressed by their content, and what is made with them is keyed by it. Rows depend on how often somebody
wanted to see one, notes on shapes that decided no weight: equal weights stay one file.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.progress import LOG
from pipeline.settings import canonical_json
from pipeline.store import Damaged, Store

STAGE = "train_history"
LOST = "the learning curve of this training is no longer in the store; its weights are whole"


@dataclass(frozen=True)
class History:
    """rows: of the learning curve, each with its "step". notes: what a reader should know. validation: category →
    number of held-out shapes that chose the best weights. file: in the store, None where it is not there.
    """

    rows: Sequence[Mapping[str, float]] = ()
    notes: Sequence[str] = ()
    validation: Mapping[str, int] = field(default_factory=dict)
    file: str | None = None

    def csv(self) -> str:
        """The rows as text; empty cells where a row lacks a value."""
        columns = ["step", *sorted({name for row in self.rows for name in row} - {"step"})]
        stream = io.StringIO()
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return stream.getvalue()


NO_HISTORY = History()


def keep_history(store: Store, key: str, result: Any) -> None:
    """Put the course of a training (`TrainResult`) under the key of its weights, and before them."""
    value = {"rows": result.history, "notes": list(result.notes), "validation": result.validation}
    store.put(STAGE, key, canonical_json(value).encode(), "json")


def kept_history(store: Store, key: str) -> History:
    """The course of the training whose weights have this key; of one that was lost only the note that says so."""
    entry = store.have(STAGE, key)
    if entry is None:
        LOG.warning("%s", LOST)
        return History(notes=(LOST,))
    try:
        return History(**json.loads(store.get(entry.file)), file=entry.file)
    except Damaged as problem:
        LOG.warning("%s; %s", problem, LOST)
        store.discard(entry)
        return History(notes=(LOST,))


def validation_note(validation: Mapping[str, int], held_out: int) -> tuple[str, ...]:
    """That not all of so many held-out shapes chose the best weights, and how many of each category did."""
    used = sum(validation.values())
    if not 0 < used < held_out:
        return ()
    counts = ", ".join(f"{number} of {category}" for category, number in validation.items())
    return (f"the best weights are chosen on {used} of {held_out} held-out shapes: {counts}",)
