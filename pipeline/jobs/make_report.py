"""Gather what a study made and write the report's folder."""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import platform
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline import files, ledger
from pipeline.jobs.check_tested import nothing_compared
from pipeline.jobs.context import Context, open_context
from pipeline.jobs.layout import Layout
from pipeline.jobs.work import read_value
from pipeline.progress import LOG

RESOURCES = Path(__file__).parent.parent.parent / "resources"
SHOWN_LIBRARIES = ("snakemake", "numpy", "scipy", "torch", "open3d-cpu", "trimesh", "pymeshlab", "manifold3d")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", type=Path, required=True, help="settings file of the report")
    parser.add_argument("--output", type=Path, required=True, help="page to write; its pictures go beside it")
    parser.add_argument("--log", type=Path, help="log file")


def run(arguments: argparse.Namespace) -> None:
    from pipeline.report import page

    context = open_context(arguments.settings)
    layout = Layout(context.results, **context.work.layout)
    settings = page.ReportSettings(**context.work.settings["report"])
    data = _gather(context, layout, settings)
    contents = page.build_report(data, page.read_templates(RESOURCES), settings)
    folder = arguments.output.parent
    for old in folder.glob("*"):
        if old.name not in contents and old.is_file():
            old.unlink()
    for name, content in sorted(contents.items(), reverse=True):
        if name != arguments.output.name:
            files.write_if_changed(folder / name, content)
    files.write_atomic(arguments.output, contents[page.PAGE])
    LOG.info("open %s", arguments.output)


def _gather(context: Context, layout: Layout, settings) -> Any:
    import pandas as pd

    from pipeline.evaluation.profiles import PROFILES
    from pipeline.report import tables
    from pipeline.report.page import ReportData
    from pipeline.report.published import read_published
    from pipeline.sources.taxonomy import name_of

    folder, config = layout.results / "evaluation", context.work.settings
    profiles = config["evaluation"]["profiles"]
    text = dict.fromkeys(("category", "id", "method", "profile", "reason", "status"), str)
    rows = pd.read_csv(folder / "shapes.csv", dtype=text).fillna({"reason": ""})
    shown = tables.rows_of_one_profile(rows, profiles)
    rejections = [(r.stage, *r.shape.split("/", 1), r.reason) for r in layout.rejections()]
    return ReportData(
        study=context.runtime["dataset"],
        rows=rows,
        summary=pd.read_csv(folder / "summary.csv", dtype=text),
        categories=pd.read_csv(folder / "categories.csv", dtype=text),
        rejected=pd.DataFrame(rejections, columns=["stage", "category", "id", "reason"]),
        cost=pd.DataFrame(stage_costs(layout), columns=["stage", "shapes", "seconds", "peak_mb"]),
        gallery=_gallery(context, layout, tables.select_gallery(shown, settings.gallery)),
        curves={name: _history(layout, name) for name in layout.trained},
        configuration=yaml_text(config),
        environment=environment(),
        profiles={name: PROFILES[name] for name in profiles},
        published=read_published(RESOURCES),
        methods=layout.experiments,
        category_names={category: name_of(category) for category, _ in layout.shards},
        fault=nothing_compared([path for name in layout.experiments for path in layout.evaluation_ledgers(name)]),
        notes=_notes(layout),
        generators=[_generated(context, layout, name, settings.generated) for name in layout.generators],
        fetched={name: weights_source(config, name) for name in layout.fetched},
        figures=pd.DataFrame(noted_figures(layout), columns=["method", "figure", "value"]),
    )


def yaml_text(config: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100)


def environment() -> dict[str, str]:
    """Versions and machine, without anything that names a person or a place."""
    installed = {d.name.lower(): d.version for d in importlib.metadata.distributions()}
    versions = {name: installed[name] for name in SHOWN_LIBRARIES if name in installed}
    return {"Python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}", **versions}


def stage_costs(layout: Layout) -> list[tuple[str, int, float, float]]:
    """Stage, shapes computed, seconds and peak memory, over all runs of this folder."""
    costs = []
    for stage, paths in layout.stages():
        noted = [row for path in paths for row in layout.timings(path) if row["seconds"] is not None]
        if noted:
            peak = max((row.get("peak_mb") or 0.0) for row in noted)
            costs.append((stage, len(noted), sum(row["seconds"] for row in noted), peak))
    return costs


def noted_figures(layout: Layout) -> list[tuple[str, str, float]]:
    """(method, figure, value) of every reconstruction; faces and query points, which every field has, left out."""
    rows = []
    for name in layout.experiments:
        for row in ledger.read_all(layout.mesh_ledgers(name)).values():
            if row.accepted:
                figures = {key: value for key, value in row.figures.items() if key not in ("faces", "query_points")}
                rows += [(name, key, float(v)) for key, v in figures.items() if isinstance(v, int | float)]
    return rows


def _history(layout: Layout, experiment: str) -> list[dict[str, float]]:
    with open(layout.results / "training" / experiment / "history.csv", newline="", encoding="utf-8") as stream:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(stream)]


def _notes(layout: Layout) -> list[str]:
    notes = []
    for name in layout.trained:
        own = files.read_json(layout.results / "training" / name / "checkpoint.json")["notes"]
        notes += [f"{name}: {note}" for note in own]
    return notes


def _gallery(context: Context, layout: Layout, chosen: list[tuple[str, str, str]]) -> list[Any]:
    from pipeline.arrays import Mesh
    from pipeline.report.figures import splats
    from pipeline.report.page import GalleryItem

    truths = _located(layout.data_ledgers(context.runtime["reference"]))
    predictions = {name: _located(layout.mesh_ledgers(name)) for name in layout.experiments}
    items = []
    for kind, category, identifier in chosen:
        shape = f"{category}/{identifier}"
        meshes = {}
        for name, rows in predictions.items():
            row, path = rows[shape]
            meshes[name] = read_value(row, path, context.store).value if row.accepted else row.reason
        truth = read_value(*truths[shape], context.store).value
        shown = truth if isinstance(truth, Mesh) else splats(truth["points"])
        items.append(GalleryItem(kind, category, identifier, shown, meshes))
    return items


def _generated(context: Context, layout: Layout, name: str, shown: int) -> Any:
    """A generator's comparisons, and the first shapes it drew."""
    from pipeline.report.generated import DISTANCES, Generated

    rows = list(_located(layout.sample_ledgers(name)).values())[:shown]
    samples = [read_value(r, path, context.store).value if r.accepted else r.reason for r, path in rows]
    result = files.read_json(layout.comparison(name))
    return Generated(name, {distance: result[distance] for distance in DISTANCES if distance in result}, samples)


def weights_source(config: dict[str, Any], experiment: str) -> str:
    """Name and digest of the file whose weights an experiment was given; no folder, which may name a person."""
    weights = next(block["weights"] for block in config["experiments"] if block["name"] == experiment)
    address = weights["path"] or urlsplit(weights["url"]).path
    digest = f", SHA-256 {weights['sha256']}" if weights["sha256"] else ""
    return f"{Path(address).name}{digest}"


def _located(paths: list[Path]) -> dict[str, tuple[ledger.Row, str]]:
    return {shape: (row, str(path)) for path in paths for shape, row in ledger.read(path).rows.items()}
