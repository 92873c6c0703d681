"""What the Snakefile does before there are rules: check the configuration, plan, and get the directory ready.

Only a run that a person started and that will run jobs writes anything. Dry runs, jobs of a run on other machines,
reports and repairs just look.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

from pipeline import commands, files, freshness, receipts, runs
from pipeline.config import load_study, preset_notes
from pipeline.jobs.checks import before_any_job
from pipeline.jobs.context import open_store
from pipeline.jobs.gpu import visible_gpus
from pipeline.overlays import ConfigError, read_yaml
from pipeline.plan import Plan
from pipeline.sources.errors import SourceError

CHECKED = runs.FOLDER / "checked.json"


def prepare(config: Mapping[str, Any], workflow: Any, argv: Sequence[str]) -> Plan:
    """The plan of the configured study. Raises WorkflowError with a message for a person."""
    from snakemake.exceptions import WorkflowError

    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(workflow.basedir), os.environ.get("PYTHONPATH")]))
    # A profile is named from where the command was typed, and --directory has led elsewhere by now.
    with chdir(workflow.workdir_init):
        command = runs.command_line(argv)
    if not command.main:
        runs.leave_if_over()
    if command.main or commands.VARIABLE not in os.environ:
        commands.remember(workflow.overwrite_configfiles)
    try:
        if command.main:
            for path in workflow.configfiles:
                read_yaml(Path(path))
        plan = Plan(*load_study(config))
        if command.main:
            say(preset_notes(plan.study))
        if command.planned:
            say(before_any_job(plan, command))
        if command.real:
            say(runs.begin())
            runs.keep_alive(command)
        if command.main:
            _relist(plan, write=command.real and runs.alone())
        if command.real:
            say(_write_settings(plan))
        if command.real and runs.alone():
            open_store(plan.runtime()["store"]).sweep()
    except (ConfigError, SourceError) as problem:
        raise WorkflowError(str(problem)) from None
    if command.main:
        _force_due(plan, workflow, remember=command.real)
    if command.gpus_unset:
        workflow.register_resource("gpu", visible_gpus())
    return plan


def _force_due(plan: Plan, workflow: Any, remember: bool) -> None:
    """Have Snakemake make again what is due, under any of its rerun triggers and with or without its own records.

    Where it learns which outputs are incomplete, all jobs are known and none is chosen yet: due outputs are forced at
    the same place and in the same way. Nothing is deleted or written, so a dry run shows the same. remember: keep the
    digests of what was looked at for the next pass.
    """
    from snakemake.dag import DAG

    check_incomplete = DAG.check_incomplete

    async def check(dag: DAG) -> None:
        await check_incomplete(dag)
        if dag.workflow is workflow:
            due = _due_among(dag.jobs, plan, remember)
            dag.forcefiles.update(due.outputs)
            say(due.lines())

    DAG.check_incomplete = check


def _due_among(jobs: Iterable[Any], plan: Plan, remember: bool) -> freshness.Due:
    """The jobs of Snakemake's graph whose outputs are due; rules without a fingerprint only name targets."""
    watched = [
        freshness.Job(job.rule.name, list(map(str, job.output)), list(map(str, job.input)), job.params.fingerprint)
        for job in jobs
        if "fingerprint" in dict(job.rule.params._allitems())
    ]
    checked = freshness.Checked(CHECKED)
    due = freshness.find_due(watched, Path(plan.results), plan.runtime()["limits"], checked)
    if remember:
        checked.save()
    return due


def say(lines: Sequence[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def _write_settings(plan: Plan) -> list[str]:
    """The settings of every stage, under their fingerprints, for the jobs of this run; what was damaged is told."""
    lines = []
    for name in plan.works():
        path = Path(plan.settings_file(name))
        there = path.is_file()
        if files.write_json_if_changed(path, plan.work(name)) and there:
            lines.append(f"{path} was changed or damaged; it is written anew.")
    files.write_json_if_changed(Path(plan.results) / "settings" / "runtime.json", plan.runtime())
    return lines


def _relist(plan: Plan, write: bool) -> None:
    """Bring the members of a source on disk up to date; fetched archives cannot change."""
    if plan.archives or not _listing_is_whole(plan):
        return  # its job lists the source anew
    from pipeline.jobs.list_shapes import relist

    folder = Path(plan.catalogue).parent
    new, gone = relist(plan.work("list_shapes")["settings"], Path(plan.results), folder, write)
    if new or gone:
        verb = "are taken up" if write else "would be taken up"
        say([f"{new} new shapes in the source, {gone} gone; they {verb}."])


def _listing_is_whole(plan: Plan) -> bool:
    """Whether the catalogue and all member files are there, as they were written."""
    try:
        receipt = receipts.read(receipts.path_of(Path(plan.results), plan.catalogue))
    except (OSError, ValueError):
        return False
    checked = freshness.Checked(CHECKED)
    return all(checked.digest(path) == digest for path, digest in receipt.made.items())
