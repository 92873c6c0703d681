"""What planning costs: dry runs and no-op runs of the real workflow at 1,000 to 50,000 shapes.

The shapes are synthetic, their listing is real. Jobs run for real under Snakemake, with `benchmarks.standin` in place
of the pipeline: a bash function named `python`, defined in the file that $BASH_ENV names while the outputs are made,
so that neither Snakefile nor pipeline knows. The measured commands run without it. Beside it stands the naive layout,
one job per shape and stage, as dry runs at sizes that end in a minute.

    python -m benchmarks.dag
    python -m benchmarks.dag --shapes 1000 --naive-shapes 1000 --source tree --keep folder
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import re
import shlex
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.measure import Cost, run_command, smallest, table

ROOT = Path(__file__).resolve().parent.parent
STANDIN = Path(__file__).with_name("standin.py")
SHAPES_PER_SHARD = 256
TEST_SHARE = 0.2
# The 13 categories of the published comparisons.
SYNSETS = (
    *("02691156", "02828884", "02933112", "02958343", "03001627", "03211117", "03636649"),
    *("03691459", "04090263", "04256520", "04379243", "04401088", "04530566"),
)
TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
STAGES = ("extract", "watertight", "scale", "surface", "volume", "sdf")
TARGET_SHAPES, TARGET_SECONDS, TARGET_MB = 50_000, 10.0, 500.0
HEADER = ("layout", "shapes", "shards", "jobs", "command", "wall s", "CPU s", "peak MB")


class Result(NamedTuple):
    """One line of the table."""

    layout: str
    shapes: int
    shards: int
    jobs: int
    command: str
    cost: Cost

    def row(self) -> tuple:
        return (*self[:5], self.cost.seconds, self.cost.cpu_seconds, self.cost.peak_mb)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shapes", type=int, nargs="*", default=[1000, 10_000, 50_000], help="sizes of the real one")
    parser.add_argument("--naive-shapes", type=int, nargs="*", default=[1000, 4000], help="sizes of the naive layout")
    parser.add_argument("--source", choices=("archives", "tree"), default="archives", help="how the shapes lie on disk")
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it; else a temporary one")
    options = parser.parse_args()
    results: list[Result] = []
    for shapes in options.shapes:
        with working_folder(options.keep, f"{options.source}-{shapes}") as folder:
            results += measure_workflow(folder, shapes, options.source)
    for shapes in options.naive_shapes:
        with working_folder(options.keep, f"naive-{shapes}") as folder:
            results.append(measure_naive(folder, shapes))
    print(table(HEADER, [result.row() for result in results]))
    print("\n".join(["", *extrapolation(results), *verdict(results)]))


@contextmanager
def working_folder(keep: Path | None, name: str) -> Iterator[Path]:
    if keep:
        folder = keep.resolve() / name
        folder.mkdir(parents=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="isomill-dag-") as temporary:
        yield Path(temporary)


# --- the real workflow


def measure_workflow(folder: Path, shapes: int, source: str) -> Iterator[Result]:
    """Dry run of an empty folder; then, with everything finished, dry run and real run that find nothing to do."""
    layout = f"shards ({source})"
    categories = {synset: ids_of(synset, count) for synset, count in sizes(shapes).items()}
    write_source(folder / "source", categories, source)
    shards = write_study(folder, categories)

    def snakemake(*switches: str, jobs: int | None = None) -> Cost:
        cost, text = run_command(workflow_command(*switches), folder)
        if jobs_in(text) != (jobs or 0):
            raise RuntimeError(f"{jobs_in(text)} jobs instead of {jobs or 0}:\n{text[-3000:]}")
        return cost

    _, text = run_command(workflow_command("-n"), folder)
    jobs = jobs_in(text)
    say(f"{shapes} shapes in {len(categories)} categories, {shards} shards, {jobs} jobs: dry runs")
    yield Result(layout, shapes, shards, jobs, "-n, nothing made yet", smallest(lambda: snakemake("-n", jobs=jobs)))
    cost = finish(folder)
    say(f"{shapes} shapes: the stand-in jobs took {cost.seconds:.0f} s ({cost.seconds / jobs * 1e3:.0f} ms a job)")
    yield Result(layout, shapes, shards, jobs, "-n, all finished", smallest(lambda: snakemake("-n")))
    yield Result(layout, shapes, shards, jobs, "real run, all finished", smallest(snakemake))


def sizes(shapes: int) -> dict[str, int]:
    """Shapes per category: four categories, one more for every thousand shapes, thirteen at most."""
    count = min(len(SYNSETS), max(4, shapes // 1000))
    return {synset: shapes // count + (k < shapes % count) for k, synset in enumerate(SYNSETS[:count])}


def ids_of(synset: str, count: int) -> list[str]:
    """Model ids as ShapeNet writes them: 32 hex digits."""
    return [hashlib.blake2b(f"{synset}/{k}".encode(), digest_size=16).hexdigest() for k in range(count)]


def write_source(folder: Path, categories: dict[str, list[str]], source: str) -> None:
    """A ShapeNetCore.v2 of one triangle per shape: an archive per category, or the unpacked tree."""
    folder.mkdir()
    for synset, ids in categories.items():
        names = [f"{synset}/{model}/models/model_normalized.obj" for model in ids]
        if source == "archives":
            with zipfile.ZipFile(folder / f"{synset}.zip", "w") as archive:
                for name in names:
                    archive.writestr(name, TRIANGLE)
        else:
            for name in names:
                (folder / name).parent.mkdir(parents=True)
                (folder / name).write_text(TRIANGLE)


def write_study(folder: Path, categories: dict[str, list[str]]) -> int:
    """The files a working directory holds, and a study over all stages. Returns the number of shards."""
    shutil.copy(ROOT / "workflow_config.yaml", folder)
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    counts = {synset: math.ceil(len(ids) / SHAPES_PER_SHARD) for synset, ids in categories.items()}
    tests = math.ceil(sum(map(len, categories.values())) * TEST_SHARE / SHAPES_PER_SHARD)
    study = {
        "dataset": "synthetic",
        "source": {"kind": "shapenet", "version": "v2", "path": "source", "categories": list(categories)},
        "shards": {"categories": [{"category": c, "shards": n} for c, n in counts.items()], "test": tests},
        "experiments": [{"name": "poisson", "preset": "poisson"}, {"name": "deepsdf", "method": "deepsdf"}],
    }
    (folder / "study.yaml").write_text(json.dumps(study, indent=1))
    return sum(counts.values())


def workflow_command(*switches: str) -> list[str]:
    snakefile = str(ROOT / "Snakefile")
    return [
        *(sys.executable, "-m", "snakemake", "-s", snakefile, "--configfile", "study.yaml"),
        *("--cores", "8", "eval_all", *switches),
    ]


def finish(folder: Path) -> Cost:
    """Run every job; only the listing is the real one."""
    script = folder / "standin.sh"
    fast = shlex.join([sys.executable, "-I", "-S", str(STANDIN)])
    script.write_text('python() { if [ "$3" = list-shapes ]; then command python "$@"; else ' + fast + ' "$@"; fi; }\n')
    cost, _ = run_command(workflow_command(), folder, {"BASH_ENV": str(script)})
    return cost


def jobs_in(text: str) -> int:
    """Jobs Snakemake announces, the target itself left out."""
    found = re.search(r"^total\s+(\d+)", text, re.MULTILINE)
    if not found and "Nothing to be done" not in text:
        raise RuntimeError(f"no number of jobs in:\n{text[-3000:]}")
    return int(found.group(1)) - 1 if found else 0


# --- the naive layout


def measure_naive(folder: Path, shapes: int) -> Result:
    """One job per shape and stage: six plain shell rules in a chain, dry run of an empty folder."""
    (folder / "Snakefile").write_text(naive_snakefile(shapes))
    command = [sys.executable, "-m", "snakemake", "--cores", "8", "--scheduler", "greedy", "-n"]
    jobs = 0

    def dry_run() -> Cost:
        nonlocal jobs
        cost, text = run_command(command, folder)
        jobs = jobs_in(text)
        return cost

    cost = smallest(dry_run)
    say(f"naive layout: {shapes} shapes, {jobs} jobs")
    return Result("one job per shape", shapes, shapes, jobs, "-n, nothing made yet", cost)


def naive_snakefile(shapes: int) -> str:
    ids = ids_of(SYNSETS[0], shapes)
    rules = [
        "SHAPES = " + repr(ids),
        f'rule all:\n    input: expand("{STAGES[-1]}/{{shape}}.npz", shape=SHAPES)',
        'wildcard_constraints:\n    shape="[0-9a-f]+",',
        f'rule {STAGES[0]}:\n    output: "{STAGES[0]}/{{shape}}.npz"\n    shell: "touch {{output}}"',
    ]
    for before, stage in itertools.pairwise(STAGES):
        rules.append(
            f'rule {stage}:\n    input: "{before}/{{shape}}.npz"\n    output: "{stage}/{{shape}}.npz"\n'
            '    shell: "cp {input} {output}"'
        )
    return "\n\n".join(rules) + "\n"


# --- what it means


def extrapolation(results: Sequence[Result]) -> list[str]:
    """The naive layout at the target's size, along the line through its two largest measured sizes."""
    naive = sorted((r for r in results if r.layout == "one job per shape"), key=lambda r: r.shapes)
    if len(naive) < 2:
        return []
    low, high = naive[-2:]
    scale = (TARGET_SHAPES - low.shapes) / (high.shapes - low.shapes)
    cpu = low.cost.cpu_seconds + scale * (high.cost.cpu_seconds - low.cost.cpu_seconds)
    peak = low.cost.peak_mb + scale * (high.cost.peak_mb - low.cost.peak_mb)
    return [
        f"Extrapolated, not measured: one job per shape at {TARGET_SHAPES:,} shapes, dry run: {cpu:,.0f} CPU s, "
        f"{peak / 1e3:.1f} GB (line through {low.shapes:,} and {high.shapes:,} shapes)."
    ]


def verdict(results: Sequence[Result]) -> list[str]:
    lines = []
    for result in results:
        if result.shapes == TARGET_SHAPES and result.command == "-n, all finished":
            met = result.cost.seconds < TARGET_SECONDS and result.cost.peak_mb < TARGET_MB
            lines.append(
                f"Target, no-op dry run at {TARGET_SHAPES:,} shapes under {TARGET_SECONDS:g} s and {TARGET_MB:g} MB: "
                f"{'met' if met else 'MISSED'} ({result.cost.seconds:.1f} s, {result.cost.peak_mb:.0f} MB)."
            )
    return lines or [f"No verdict: {TARGET_SHAPES:,} shapes were not measured."]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
