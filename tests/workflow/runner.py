"""Real Snakemake runs of the small fault profile in a folder of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import yaml

from pipeline import files, ledger
from pipeline.overlays import merge

ROOT = Path(__file__).parent.parent.parent
PROFILE = yaml.safe_load((Path(__file__).parent / "fault_profile.yaml").read_text())
CODE = ("Snakefile", "workflow_config.yaml", "rules", "pipeline", "envs", "resources", "profiles", "pyproject.toml")


class Workflow:
    """A checkout with its working directory. Code and configuration can be edited; nothing else is shared."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def new(cls, folder: Path, overlay: dict | None = None) -> Workflow:
        folder.mkdir(parents=True)
        for name in CODE:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, folder / name)
        workflow = cls(folder)
        workflow.configure(overlay or {})
        return workflow

    def copy(self, folder: Path) -> Workflow:
        """The same state elsewhere, times included."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Workflow(folder)

    def configure(self, overlay: dict) -> None:
        """Lay an overlay over the fault profile."""
        (self.folder / "study.yaml").write_text(yaml.safe_dump(merge(PROFILE, overlay), sort_keys=False))

    @property
    def command(self) -> list[str]:
        """The command every run of a test types, literally."""
        program = Path(sys.executable).with_name("snakemake")
        return [str(program), "--cores", "2", "--configfile", "workflow_config.yaml", "study.yaml", "--"]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "CUDA_VISIBLE_DEVICES": ""}

    def start(self, *targets: str, switches: tuple[str, ...] = ()) -> subprocess.Popen:
        """Begin a run in a process group of its own, its output in run.log."""
        command = [*self.command[:-1], *switches, "--", *(targets or ("eval_all",))]
        with open(self.folder / "run.log", "w") as log:
            return subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def start_until(self, pattern: str, *targets: str) -> subprocess.Popen:
        """Begin a run and wait until files of a pattern below its folder are there; it is still at work then."""
        process = self.start(*targets)
        deadline = time.monotonic() + 300
        while not any(self.folder.glob(pattern)):
            assert process.poll() is None, (self.folder / "run.log").read_text()[-3000:]
            assert time.monotonic() < deadline, f"no {pattern} after 300 s"
            time.sleep(0.02)
        return process

    def run(self, *targets: str, switches: tuple[str, ...] = (), fails: bool = False) -> str:
        """Run to the end; gives what it printed."""
        code = self.start(*targets, switches=switches).wait(timeout=1200)
        text = (self.folder / "run.log").read_text()
        assert (code != 0) == fails, text[-4000:]
        return text

    def dry_run(self, *targets: str) -> str:
        return self.run(*targets, switches=("-n",))

    @property
    def results(self) -> Path:
        return self.folder / "results" / yaml.safe_load((self.folder / "study.yaml").read_text())["dataset"]

    def computed(self) -> Counter:
        """How many shapes each stage has computed in this folder so far; trainings by their steps."""
        counts: Counter = Counter()
        noted = self.results / "timings"
        for path in noted.rglob("*.jsonl"):
            parts = path.relative_to(noted).parts
            rows = files.read_journal(path)
            if parts[0] == "data":
                counts["/".join(parts[1:-2])] += len(rows)
            elif parts[0] == "training":
                counts[f"train/{parts[1]}"] += sum(row["steps"] or 1 for row in rows)
            else:
                counts[f"{parts[0]}/{parts[-2]}"] += len(rows)
        return counts

    def digests(self) -> dict[str, str]:
        """Stage and shape → content digest or reason, for everything the current configuration made."""
        found = {}
        for kind in ("data", "meshes", "evaluation"):
            for path in sorted((self.results / kind).rglob("*.jsonl")):
                stage = "/".join(path.relative_to(self.results).parts[:-1])
                stage = stage.rsplit("/", 1)[0] if kind == "data" else stage
                for shape, row in ledger.read(path).rows.items():
                    found[f"{stage}:{shape}"] = row.digest or row.reason
        for path in sorted((self.results / "training").glob("*/checkpoint.json")):
            found[f"training/{path.parent.name}"] = files.read_json(path)["digest"]
        for path in sorted((self.results / "evaluation").glob("*.csv")):
            found[path.name] = path.read_text()
        return found


def added(before: Counter, after: Counter) -> dict[str, int]:
    """What was computed between two counts."""
    return dict(after - before)
