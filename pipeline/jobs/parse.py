"""What the Snakefile does before there are rules: check the configuration, plan, and get the directory ready.

Only a run that a person started and that will run jobs writes anything. Dry runs, jobs of a run on other machines,
reports and repairs just look.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

from pipeline import commands, files, ledger, runs
from pipeline.config import load_study, preset_notes
from pipeline.jobs.checks import before_any_job
from pipeline.jobs.context import open_store
from pipeline.jobs.gpu import visible_gpus
from pipeline.jobs.work import LIMIT_MARK
from pipeline.overlays import ConfigError, read_yaml
from pipeline.plan import Plan
from pipeline.sources.errors import SourceError


def prepare(config: Mapping[str, Any], workflow: Any, argv: Sequence[str]) -> Plan:
    """The plan of the configured study. Raises WorkflowError with a message for a person."""
    from snakemake.exceptions import WorkflowError

    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(workflow.basedir), os.environ.get("PYTHONPATH")]))
    # A profile is named from where the command was typed, and --directory has led elsewhere by now.
    with chdir(workflow.workdir_init):
        command = runs.command_line(argv)
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
        if command.main:
            _relist(plan, write=command.real and runs.alone())
        if command.real:
            _write_settings(plan)
        if command.real and runs.alone():
            open_store(plan.runtime()["store"]).sweep()
    except (ConfigError, SourceError) as problem:
        raise WorkflowError(str(problem)) from None
    if command.gpus_unset:
        workflow.register_resource("gpu", visible_gpus())
    return plan


def say(lines: Sequence[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def _write_settings(plan: Plan) -> None:
    """The settings of every stage, under their fingerprints, for the jobs of this run."""
    for name in plan.works():
        path = Path(plan.settings_file(name))
        if not path.is_file():
            files.write_json(path, plan.work(name))
    path = Path(plan.results) / "settings" / "runtime.json"
    if path.is_file():
        _forget_limited(plan, files.read_json(path)["limits"])
    files.write_json(path, plan.runtime())


def _forget_limited(plan: Plan, before: Mapping[str, float]) -> None:
    """Where limits are wider now, remove the ledgers of shapes that ran into one: they are tried again."""
    if all(plan.runtime()["limits"][name] <= value for name, value in before.items()):
        return
    for ledger_path in sorted(Path(plan.results).glob("data/**/*.jsonl")):
        if any(LIMIT_MARK in row.reason for row in ledger.read(ledger_path).rows.values()):
            ledger_path.unlink()


def _relist(plan: Plan, write: bool) -> None:
    """Bring the members of a source on disk up to date; fetched archives cannot change."""
    folder = Path(plan.catalogue).parent
    if plan.archives or not (folder / "listed.json").is_file():
        return
    from pipeline.jobs.list_shapes import relist

    new, gone = relist(plan.work("list_shapes")["settings"], folder, write)
    if new or gone:
        verb = "are taken up" if write else "would be taken up"
        say([f"{new} new shapes in the source, {gone} gone; they {verb}."])
