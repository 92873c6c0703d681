"""What a finished run cost: seconds, memory and bytes of every data stage, and each method against the demo's budget.

    python -m benchmarks.stages results/demo

Costs per shape come from results/<dataset>/timings, sizes from the ledgers, costs per job from Snakemake's benchmark
files in logs/<dataset>. A job that found its products in the store cost nothing that is worth a verdict; it is marked.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import table
from pipeline import ledger
from pipeline.stages import STAGES

SETTLED = re.compile(r"(\d+) (?:test )?shapes, (\d+) of them settled already")
TRAINED_BEFORE = "nothing to train"
# Shapes rejected earlier are settled too; the workflow stops where they are more than a fifth.
REUSED_FROM = 0.25
BUDGET_CORES = 2
BUDGET = {"data stages": 180.0, "each trained method": 30.0, "report": 60.0}
DATA_JOBS = ("make_demo_archive", "download_source", "list_shapes", *STAGES, "check_rejected")
REPORT_JOBS = ("summarise", "make_report", "record_provenance")
STAGE_HEADER = (
    *("stage", "shapes", "rejected", "median s", "worst s", "CPU s", "waiting %", "reading %"),
    *("peak MB", "kB/shape", "all s"),
)
METHOD_HEADER = ("", "jobs", "train s", "generate s", "evaluate s", "wall s", "CPU s", "budget s", "verdict")


@dataclass(frozen=True)
class Job:
    """One job's benchmark. reused: share of its shapes that the store had, None where its log does not say."""

    seconds: float
    cpu_seconds: float
    reused: float | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path, help="results folder of a dataset, e.g. results/demo")
    parser.add_argument("--logs", type=Path, help="its logs; by default logs/<dataset> beside the results")
    options = parser.parse_args()
    results = options.results.resolve()
    logs = options.logs or results.parent.parent / "logs" / results.name
    stages = [stage_row(results, instance) for instance in instances(results)]
    print("Data stages, per shape\n")
    print(table(STAGE_HEADER, stages))
    print(
        "\nCPU s: mean. waiting: share of the wall time without CPU (disk, or other work on the machine)."
        "\nreading: share of the wall time. peak: largest of the stage's workers over its life, libraries included."
    )
    print(f"\nJobs, against the demo's budget on {BUDGET_CORES} cores\n")
    print(table(METHOD_HEADER, budget_rows(results, logs)))
    print(
        "\n*: some shapes or the checkpoint came from the store, so the seconds say too little and there is no verdict."
        "\nwall: sum over jobs, which run one after another where each takes all cores."
        "\nCPU: as Snakemake sampled it, too little for jobs of a few seconds."
    )


# --- shapes


def instances(results: Path) -> list[str]:
    """All data stages with ledgers, in the order of the data's path."""
    found = {
        path.parent.parent.relative_to(results / "data").as_posix() for path in (results / "data").rglob("*.jsonl")
    }
    order = list(STAGES)
    return sorted(found, key=lambda instance: (order.index(instance.split("/")[0]), instance))


def stage_row(results: Path, instance: str) -> tuple:
    folder = results / "data" / instance
    rows = ledger.read_all(sorted(folder.glob("*/*.jsonl"))).values()
    costs = latest_costs((results / "timings" / "data" / instance).glob("*/*.jsonl"))
    rejected = sum(not row.accepted and row.stage == instance for row in rows)
    sizes = [row.size for row in rows if row.accepted]
    kilobytes = statistics.fmean(sizes) / 1e3 if sizes else None
    if not costs:
        return (instance, 0, rejected, *[None] * 6, kilobytes, None)
    wall, cpu, read = (sum(cost[name] for cost in costs) for name in ("seconds", "cpu_seconds", "read_seconds"))
    seconds = [cost["seconds"] for cost in costs]
    return (
        instance,
        len(costs),
        rejected,
        statistics.median(seconds),
        max(seconds),
        cpu / len(costs),
        100 * max(0.0, 1 - cpu / wall),
        100 * read / wall,
        max(cost["peak_mb"] for cost in costs),
        kilobytes,
        wall,
    )


def latest_costs(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """The last cost of every shape; shapes whose worker died have none."""
    costs: dict[str, dict[str, Any]] = {}
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row["seconds"] is not None:
                costs[row["shape"]] = row
    return list(costs.values())


# --- jobs


def budget_rows(results: Path, logs: Path) -> list[tuple]:
    rows = [phase_row("data stages", jobs_of(logs, DATA_JOBS), BUDGET["data stages"])]
    trained = {path.parent.name for path in (results / "training").glob("*/checkpoint.json")}
    for name in sorted(path.name for path in (results / "meshes").iterdir()):
        parts = [
            read_jobs([logs / "train_model" / f"{name}.tsv"]) if name in trained else [],
            read_jobs((logs / "generate_meshes" / name).glob("*.tsv")),
            read_jobs((logs / "evaluate_meshes" / name).glob("*.tsv")),
        ]
        jobs = [job for part in parts for job in part]
        seconds = [sum(job.seconds for job in part) if part else None for part in parts]
        rows.append(phase_row(name, jobs, BUDGET["each trained method"] if name in trained else None, seconds))
    return [*rows, phase_row("report", jobs_of(logs, REPORT_JOBS), BUDGET["report"])]


def phase_row(label: str, jobs: list[Job], budget: float | None, parts: Iterable[float | None] = (None,) * 3) -> tuple:
    wall, cpu = sum(job.seconds for job in jobs), sum(job.cpu_seconds for job in jobs)
    reused = any((job.reused or 0.0) > REUSED_FROM for job in jobs)
    verdict = "" if budget is None or reused else "within" if wall <= budget else f"OVER, {wall / budget:.1f} times"
    return (f"{label} *" if reused else label, len(jobs), *parts, wall, cpu, budget, verdict)


def jobs_of(logs: Path, rules: Iterable[str]) -> list[Job]:
    """Jobs of some rules, whatever wildcards they have."""
    return [job for rule in rules for job in read_jobs([logs / f"{rule}.tsv", *(logs / rule).rglob("*.tsv")])]


def read_jobs(paths: Iterable[Path]) -> list[Job]:
    jobs = []
    for path in paths:
        if path.is_file():
            with open(path, newline="", encoding="utf-8") as stream:
                row = next(csv.DictReader(stream, delimiter="\t"))
            jobs.append(Job(float(row["s"]), number(row["cpu_time"]), reused_share(path.with_suffix(".log"))))
    return jobs


def number(text: str) -> float:
    """A cell of a benchmark file; jobs too short to be sampled have none."""
    return float(text) if re.fullmatch(r"[0-9.]+", text) else 0.0


def reused_share(log: Path) -> float | None:
    """Share of a job's shapes that needed no work: stored, or rejected before."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    if TRAINED_BEFORE in text:
        return 1.0
    found = SETTLED.search(text)
    return int(found.group(2)) / max(1, int(found.group(1))) if found else None


if __name__ == "__main__":
    main()
