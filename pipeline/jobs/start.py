"""What is held against a cluster when the rules are known, and when a run's first job is about to start."""

from __future__ import annotations

import atexit
import io
import sys
from collections.abc import Sequence
from contextlib import chdir, redirect_stderr
from typing import Any

from pipeline import partitions, runs
from pipeline.partitions import CPUS, MEMORY, MINUTES, Request
from pipeline.plan import Plan

# Where Snakemake keeps a job's threads among its resources.
CORES = "_cores"
CLUSTERS = ("slurm_cluster", "cluster", "clusters")


def rules_are_known(workflow: Any, plan: Plan, argv: Sequence[str]) -> None:
    """Say in a dry run which rules of the study ask for more than their partition grants; a real run refuses in
    `first_job`, when it knows which jobs are due."""
    with chdir(workflow.workdir_init), redirect_stderr(io.StringIO()):  # which names the profiles once more
        command = runs.command_line(argv)
    if command.real:
        atexit.register(say_what_lacks_metadata, workflow)
    if command.dry and command.executor == "slurm":
        used = {name.split("/")[0] for name in plan.works()}
        requests = [request_of_rule(rule) for rule in workflow.rules if rule.name in used]
        for line in partitions.beyond(requests, partitions.read_partitions()):
            print(line, file=sys.stderr)


def first_job(workflow: Any) -> None:
    """Called by Snakemake's `onstart`: write down where this run's jobs go, and refuse what would never start.

    Raises WorkflowError, before anything is submitted.
    """
    from snakemake.exceptions import WorkflowError

    own = runs.own_run()
    if own is None or not own.is_file():
        return
    # The plugin names all jobs of a run alike; other executors have no such name.
    name = getattr(workflow.scheduler._executor, "run_uuid", None)
    jobs = list(workflow.dag.needrun_jobs())
    clusters = sorted({job.resources.get(key) for job in jobs for key in CLUSTERS} - {None, ""})
    runs.note_jobs(
        own,
        cluster=not workflow.local_exec,
        locked=workflow.execution_settings.lock,
        jobs={"name": name, "clusters": clusters} if name else None,
    )
    if name:
        requests = {request_of_job(job): None for job in jobs if not job.is_local and not job.is_group()}
        lines = partitions.beyond(requests, partitions.read_partitions())
        if lines:
            raise WorkflowError("\n".join(lines))


def request_of_rule(rule: Any) -> Request:
    """What the first attempt of any job of a rule asks for; what only a job can tell is left out."""
    found = {name: _value(rule, name) for name in (MINUTES, MEMORY, CORES, "slurm_partition")}
    return _request(rule.name, found)


def _value(rule: Any, name: str) -> Any:
    resource = rule.resources.get(name)
    if resource is None or not resource.is_evaluable():
        return resource and resource.value
    try:
        return resource.evaluate(
            wildcards=None, input=None, attempt=1, threads=1, rulename=rule.name, async_run=None
        ).value
    except Exception:  # an expression over the job's wildcards or input, in any way a profile's author wrote it
        return None


def request_of_job(job: Any) -> Request:
    return _request(job.rule.name, job.resources)


def _request(rule: str, found: Any) -> Request:
    amounts = {MINUTES: found.get(MINUTES), MEMORY: found.get(MEMORY), CPUS: found.get(CORES)}
    amounts = tuple((name, value) for name, value in amounts.items() if isinstance(value, int))
    return Request(rule, found.get("slurm_partition"), amounts)


def say_what_lacks_metadata(workflow: Any) -> None:
    """Say at a real run's end what Snakemake says in dry runs only: which results it has no records of."""
    dag = workflow.dag
    if dag is None:
        return
    for attribute, word in (("no_metadata", "missing"), ("outdated_metadata", "outdated")):
        jobs = [job for job in dag.jobs if getattr(dag.reason(job), attribute) and not dag.needrun(job)]
        if jobs:
            print(
                f"{len(jobs)} jobs have {word} provenance/metadata so that it in part cannot be used to trigger "
                f"re-runs.\nRules with {word} metadata: {' '.join(sorted({job.rule.name for job in jobs}))}",
                file=sys.stderr,
            )
