"""Write the RO-Crate of a study: what was run on what, with which settings, and what came out, by digest."""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.jobs.context import open_context
from pipeline.jobs.layout import Layout
from pipeline.jobs.make_report import environment, stage_costs, yaml_text

ROOT = Path(__file__).parent.parent.parent
RECORDED = ("shapes.csv", "summary.csv", "categories.csv", "metrics.csv", "metrics.parquet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", type=Path, required=True, help="settings file of the provenance")
    parser.add_argument("--output", type=Path, required=True, help="ro-crate-metadata.json to write")
    parser.add_argument("--log", type=Path, help="log file")


def run(arguments: argparse.Namespace) -> None:
    from pipeline.report.provenance import build_crate

    context = open_context(arguments.settings)
    layout = Layout(context.results, **context.work.layout)
    text = yaml_text(context.work.settings)
    # The crate is the folder of the study, so what it describes must lie in it.
    files.write_atomic(layout.results / "configuration.yaml", text)
    files.write_atomic(layout.results / "Snakefile", (ROOT / "Snakefile").read_bytes())
    actions = _actions(layout)
    record = {
        "name": f"Isomill study {context.runtime['dataset']}",
        "description": "A comparison of implicit shape models on the same shapes by the same metrics.",
        "version": version(),
        "commit": _commit(),
        "license": "MIT",
        "workflow": _file(layout.results / "Snakefile", layout.results),
        "engine": "Snakemake",
        "engine_version": environment().get("snakemake", "unknown"),
        "started": min(a["started"] for a in actions),
        "ended": max(a["ended"] for a in actions),
        "agents": [],
        "config": {"path": "configuration.yaml", "text": text},
        "seeds": {"root": context.work.seed},
        "software": {name: v for name, v in environment().items() if name not in ("Python", "system")},
        "environment": {name: v for name, v in environment().items() if name in ("Python", "system")},
        "inputs": [_archive(layout, name) for name in layout.archives]
        + [_file(Path(layout.catalogue), layout.results)],
        "outputs": [_file(layout.results / "evaluation" / name, layout.results) for name in RECORDED]
        + [_file(layout.results / "report" / "index.html", layout.results)],
        "actions": actions,
    }
    files.write_atomic(arguments.output, build_crate(record))


def version() -> str:
    """Isomill's own version; it runs from its checkout, installed or not."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def _actions(layout: Layout) -> list[dict[str, Any]]:
    """One action per stage. Its times are those its files were written at: a restart may have taken days between."""
    costs = {stage: (seconds, peak) for stage, _, seconds, peak in stage_costs(layout)}
    actions, before = [], [_file(Path(layout.catalogue), layout.results)]
    for stage, paths in layout.stages():
        outputs = [_file(path, layout.results) for path in paths]
        times = [path.stat().st_mtime for path in paths]
        action = {"name": stage.replace("/", "-"), "inputs": before, "outputs": outputs}
        action |= {"started": _time(min(times)), "ended": _time(max(times))}
        if stage in costs:
            action |= {"seconds": round(costs[stage][0], 3), "peak_mb": costs[stage][1]}
        actions.append(action)
        before = outputs
    return actions


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _file(path: Path, base: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {
        "path": path.relative_to(base).as_posix(),
        "digest": f"sha256:{hashlib.sha256(content).hexdigest()}",
        "size": len(content),
    }


def _archive(layout: Layout, name: str) -> dict[str, Any]:
    pointer = files.read_json(layout.results / "source" / f"{name}.json")
    return {
        "path": f"{name}.zip",
        "digest": f"sha256:{pointer['sha256']}",
        "size": pointer["bytes"],
        "url": pointer["url"],
    }


def _commit() -> str:
    """Revision of the workflow's code; "unknown" where it is not a git checkout."""
    answer = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"
