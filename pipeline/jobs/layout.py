"""Where the files of a study lie, as jobs, the report and the provenance need them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import files, ledger
from pipeline.ledger import Row


def claim_of(output: Path) -> Path:
    """Where it stands which job makes an output at present (`pipeline.claims`)."""
    return output.with_name(f".owner-{output.stem}.json")


@dataclass(frozen=True)
class Layout:
    """results: folder of the study. The rest as `Plan.layout` writes it."""

    results: Path
    instances: list[str]
    experiments: list[str]
    generators: dict[str, list[str]]
    trained: list[str]
    fetched: list[str]
    shards: list[list[str]]
    test_shards: list[str]
    catalogue: str
    archives: list[str]

    def data_ledgers(self, instance: str) -> list[Path]:
        return [self.results / "data" / instance / category / f"{shard}.jsonl" for category, shard in self.shards]

    def mesh_ledgers(self, experiment: str) -> list[Path]:
        return [self.results / "meshes" / experiment / f"{shard}.jsonl" for shard in self.test_shards]

    def evaluation_ledgers(self, experiment: str) -> list[Path]:
        return [self.results / "evaluation" / "raw" / experiment / f"{shard}.jsonl" for shard in self.test_shards]

    def sample_ledgers(self, generator: str) -> list[Path]:
        return [self.results / "samples" / generator / f"{block}.jsonl" for block in self.generators[generator]]

    def comparison(self, generator: str) -> Path:
        return self.results / "evaluation" / "samples" / f"{generator}.json"

    def stages(self) -> Iterator[tuple[str, list[Path]]]:
        """Every stage with the ledgers or files it wrote, in the order of the data's path."""
        for instance in self.instances:
            yield instance, self.data_ledgers(instance)
        for name in self.trained:
            yield f"train_model/{name}", [self.results / "training" / name / "checkpoint.json"]
        for name in self.fetched:
            yield f"fetch_weights/{name}", [self.results / "training" / name / "checkpoint.json"]
        for name in self.experiments:
            yield f"generate_meshes/{name}", self.mesh_ledgers(name)
        for name in self.experiments:
            yield f"evaluate_meshes/{name}", self.evaluation_ledgers(name)
        for name in self.generators:
            yield f"sample_shapes/{name}", self.sample_ledgers(name)

    def rejections(self) -> list[Row]:
        """Every shape that a data stage rejected, once, at the stage that did it first."""
        rows = {}
        for instance in self.instances:
            for shape, row in ledger.read_all(self.data_ledgers(instance)).items():
                if not row.accepted and row.stage == instance:
                    rows.setdefault(shape, row)
        return [rows[shape] for shape in sorted(rows)]

    def timings(self, path: Path) -> list[dict[str, Any]]:
        """What the shapes of a ledger cost, over all runs that computed any of them."""
        noted = self.results / "timings" / path.relative_to(self.results).with_suffix(".jsonl")
        return files.read_journal(noted) if noted.is_file() else []
