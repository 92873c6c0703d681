"""Judge once per stage whether too many shapes were rejected, before anything is trained on the rest."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline import files, ledger
from pipeline.jobs.context import open_context
from pipeline.progress import LOG

WORST = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", type=Path, required=True, help="settings file of the check")
    parser.add_argument("--instance", required=True, help="stage that is judged")
    parser.add_argument("--output", type=Path, required=True, help="verdict to write")
    parser.add_argument("--log", type=Path, help="log file")


def run(arguments: argparse.Namespace) -> None:
    limit = open_context(arguments.settings).work.settings["max_rejected"]
    # Its inputs are the ledgers of the stage: thousands in a large study, so they are named once in the shell line.
    rows = ledger.read_all(arguments.receipt_from).values()
    entered = [row for row in rows if row.accepted or row.stage == arguments.instance]
    rejected = [row for row in entered if not row.accepted]
    share = len(rejected) / len(entered) if entered else 0.0
    reasons = ledger.count_reasons(rejected).most_common()
    if share > limit:
        raise SystemExit(explain(arguments.instance, rejected, len(entered), limit))
    if rejected:
        LOG.warning("%s rejected %d of %d shapes:", arguments.instance, len(rejected), len(entered))
        for reason, count in reasons[:WORST]:
            LOG.warning("  %d x %s", count, reason)
    # What stands on the stage reads this file instead of every shard's ledger, so it has to change with any of them.
    digest = files.digest_of(b"".join(path.read_bytes() for path in arguments.receipt_from))
    counts = {"entered": len(entered), "rejected": len(rejected), "reasons": dict(reasons)}
    files.write_json(arguments.output, {"stage": arguments.instance, **counts, "ledgers": digest})


def explain(instance: str, rejected: list[ledger.Row], entered: int, limit: float) -> str:
    """The message of a stage that rejected too much: the worst reasons, a shape of each, and what to do."""
    lines = [f"{instance} rejected {len(rejected)} of {entered} shapes, more than max_rejected = {limit:g} allows:"]
    reasons = ledger.count_reasons(rejected).most_common()
    for reason, count in reasons[:WORST]:
        example = min(row.shape for row in rejected if row.reason == reason)
        lines.append(f"  {count} x {reason}  (for example {example})")
    if len(reasons) > WORST:
        lines.append(f"  … and {len(reasons) - WORST} more reasons")
    lines.append("Look at these shapes or the stage's settings; or raise limits.max_rejected if they may be left out.")
    return "\n".join(lines)
