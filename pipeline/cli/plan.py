"""`isomill plan`: what a study consists of and how far it is, from its ledgers alone."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline import commands, ledger
from pipeline.cli.study import add_config_argument, read_plan
from pipeline.unused import unused_keys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser)


def run(arguments: argparse.Namespace) -> None:
    plan = read_plan(arguments.configfile)
    print(f"study {plan.study.dataset}: {len(plan.categories)} categories, {len(plan.shards)} shards")
    print(f"{'data stage':32} {'shards done':>12} {'shapes':>8} {'rejected here':>14}")
    for instance in plan.instances:
        done = [path for path in plan.ledgers(instance) if Path(path).is_file()]
        rows = ledger.read_all(done).values()
        own = sum(row.stage == instance for row in rows)
        print(f"{instance:32} {f'{len(done)}/{len(plan.shards)}':>12} {len(rows):>8} {own:>14}")
    print("experiments:")
    for name, experiment in plan.experiments.items():
        trains = plan.declaration(name).trains
        checkpoint = Path(f"{plan.results}/training/{name}/checkpoint.json")
        state = "nothing to train" if trains == "nothing" else "trained" if checkpoint.is_file() else "not trained"
        print(f"  {name:30} {experiment.method:16} {state}")
    for line in unused_keys(plan):
        print(line)
    print(f"What would run, and why:  {commands.snakemake('-n', 'eval_all')}")
