"""`isomill statistics`: what data stages and methods noted of every shape, as one table, and the ranges of it."""

from __future__ import annotations

import argparse
import csv
import io
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import files, ledger
from pipeline.cli.study import add_config_argument, read_plan
from pipeline.jobs.layout import Layout

COLUMNS = ("shape", "stage", "figure", "value")
RATIO = "volume of the samples over the mesh's"
# Figures that hold the volume samples make; the mesh's stands beside them.
SAMPLED_VOLUMES = {"sample_volume": "sampled_volume", "voxelize": "occupied_share"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, help="CSV to write; by default results/<dataset>/statistics.csv")
    add_config_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    plan = read_plan(arguments.configfile)
    layout = Layout(Path(plan.results), **plan.layout())
    output = arguments.output or layout.results / "statistics.csv"
    rows = [row for stage, paths in stage_ledgers(layout) for row in stage_rows(stage, paths)]
    if not rows:
        raise SystemExit(f"error: no stage of {plan.results} has finished any shape")
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    files.write_atomic(output, stream.getvalue())
    print(f"{'stage':40} {'figure':44} {'shapes':>7} {'least':>10} {'mean':>10} {'most':>10}")
    for (stage, figure), values in grouped(rows).items():
        numbers = (min(values), statistics.fmean(values), max(values))
        print(f"{stage:40} {figure:44} {len(values):>7,}", *(f"{number:>10.5g}" for number in numbers))
    print(f"\n{len(rows):,} figures in {output}")
    return 0


def stage_ledgers(layout: Layout) -> Iterator[tuple[str, list[Path]]]:
    """Data stages, then what each method noted of its reconstructions, such as the end of an optimisation."""
    for instance in layout.instances:
        yield instance, layout.data_ledgers(instance)
    for name in layout.experiments:
        yield f"generate_meshes/{name}", layout.mesh_ledgers(name)


def stage_rows(stage: str, paths: Sequence[Path]) -> Iterator[tuple[str, str, str, float]]:
    """(shape, stage, figure, value) of every accepted shape of the ledgers that are there."""
    table = ledger.read_all([path for path in paths if path.is_file()])
    for shape in sorted(table):
        if table[shape].accepted:
            for figure, value in numbers(table[shape].figures, stage.split("/")[0]):
                yield shape, stage, figure, value


def numbers(figures: Mapping[str, Any], stage: str) -> Iterator[tuple[str, float]]:
    """The numbers among a shape's figures, nested ones by their path: "sign_agreement.volume"; words are left out."""
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", number) for inner, number in numbers(value, ""))
        elif isinstance(value, int | float):
            yield name, float(value)
    sampled = figures.get(SAMPLED_VOLUMES.get(stage, ""))
    if sampled is not None and figures.get("mesh_volume"):
        yield RATIO, sampled / figures["mesh_volume"]


def grouped(rows: list[tuple[str, str, str, float]]) -> dict[tuple[str, str], list[float]]:
    """(stage, figure) → values, in the order they first appear."""
    groups: dict[tuple[str, str], list[float]] = {}
    for _, stage, figure, value in rows:
        groups.setdefault((stage, figure), []).append(value)
    return groups
