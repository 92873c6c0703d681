"""A study of balls in a folder: settings, catalogue and stored data, so that a job runs without the ones before it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline import encoding, files, ledger
from pipeline.arrays import Product
from pipeline.config import load_study
from pipeline.jobs.train_model import _encode, write_checkpoint
from pipeline.ledger import Ledger, Row
from pipeline.models.contract import build_from
from pipeline.plan import Plan
from pipeline.settings import canonical_json
from pipeline.shape_arrays import array_prefix
from pipeline.sources.catalogue import Entry, write_catalogue
from pipeline.store import Store
from pipeline.training.checkpoint import weights_of
from pipeline.training.loop import TrainResult


class Study:
    """Below the working directory. The jobs' own functions take what `arguments` gives."""

    def __init__(self, experiments: Sequence[dict], **more) -> None:
        source = {"kind": "directory", "path": "meshes"}
        self.plan = Plan(*load_study({"source": source, "experiments": list(experiments), **more}))
        self.results, self.store = Path(self.plan.results), Store(Path("store"))
        for name in self.plan.works():
            files.write_json(Path(self.plan.settings_file(name)), self.plan.work(name))
        files.write_json(self.results / "settings" / "runtime.json", self.plan.runtime())

    def keep(self, shapes: Mapping[str, dict[str, np.ndarray]], instances: Sequence[str], split: str = "train") -> None:
        """Store the arrays of shapes ("all/<id>") as these data stages would, and list them."""
        for instance in instances:
            rows = {shape: self._row(instance, shape, arrays) for shape, arrays in shapes.items()}
            ledger.write(Path(self.plan.ledger(instance, "all", "0")), Ledger({"stage": instance}, rows))
        entries = [Entry(*shape.split("/"), split, {}) for shape in shapes]
        files.write_atomic(Path(self.plan.catalogue), write_catalogue(entries))
        members = [{"shape": shape, "category": "all", "shard": "0"} for shape in shapes]
        for path in (self.plan.members("all", "0"), self.plan.test_members("0")):
            files.write_atomic(Path(path), "".join(f"{canonical_json(member)}\n" for member in members))

    def _row(self, instance: str, shape: str, arrays: dict[str, np.ndarray]) -> Row:
        prefix, variant = array_prefix(instance), instance.partition("/")[2]
        own = {k.removeprefix(f"{prefix}."): v for k, v in arrays.items() if k.startswith(f"{prefix}.")}
        if prefix == "voxels":
            own = {"voxels": arrays[f"voxels.{variant}"]}
        content = encoding.encode(Product(own), "arrays")
        key = files.digest_of(f"{instance} {shape} {files.digest_of(content)}".encode())
        entry = self.store.put(instance.split("/")[0], key, content, "safetensors")
        return Row(shape, "ok", entry.key, entry.file, entry.digest, entry.size)

    def checkpoint(self, experiment: str) -> Path:
        return self.results / "training" / experiment / "checkpoint.json"

    def pretend_trained(self, experiment: str) -> None:
        """A checkpoint whose best weights are others than its last."""
        settings = self.plan.work(f"train_model/{experiment}")["settings"]
        best, last = (weights_of(build_from(settings, 3, seed)) for seed in (1, 2))
        content = _encode(TrainResult(best, last, [], steps_done=2, best_step=1), settings, 3)
        entry = self.store.put("train_model", files.digest_of(content), content, "safetensors")
        write_checkpoint(self.checkpoint(experiment), entry, content, experiment)

    def arguments(self, stage: str, experiment: str, output: str, **more) -> Namespace:
        settings = Path(self.plan.settings_file(f"{stage}/{experiment}"))
        own = {"settings": settings, "experiment": experiment, "output": self.results / output, "threads": 1}
        return Namespace(**{**own, "log": None, "parent": None, **more})
