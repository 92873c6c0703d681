"""The plan of a study: which stages run for which shards, where their files lie, what decides each of them.

Its shape follows from the configuration alone, so the workflow always shows everything before anything is made.
Pure and light: nothing is read or written here but the source code that the fingerprints cover, and the files of
weights that a training is to start from.
"""

from __future__ import annotations

import functools
import hashlib
import re
from pathlib import Path
from typing import Any

from pipeline import files, fingerprint, stages
from pipeline.config import MEAN_SHAPE, ROOT, Study
from pipeline.models import registry
from pipeline.models.declaration import Declaration
from pipeline.overlays import ConfigError
from pipeline.settings import Settings
from pipeline.sources.shapenet import archive_name
from pipeline.sources.splits import list_files
from pipeline.sources.taxonomy import synset_of

LOCK = ROOT / "envs" / "requirements.lock"
ENCODING = "pipeline.encoding"  # decides the bytes of every product
QUICK_STAGES = {"sample_surface", "sample_volume", "voxelize"}
EVALUATION_STAGES = ("scale_to_off", "sample_surface", "sample_volume")
TRAINING_LIBRARIES = ("numpy", "torch", "torchdiffeq", "lightning-fabric")
PLAIN_MODULES = {
    "make_demo_archive": ["pipeline.sources.demo"],
    "download_source": ["pipeline.sources.download"],
    "list_shapes": ["pipeline.sources.listing"],
    "check_rejected": [],
    "drop_products": [],
    "check_tested": [],
    "summarise": ["pipeline.evaluation.summary"],
    "make_report": ["pipeline.report.page"],
    "record_provenance": ["pipeline.report.provenance"],
}
GENERATION_LIBRARIES = ("numpy", "scipy", "scikit-image", "torch", "torchdiffeq", "open3d-cpu", "libigl")
QUICK_MODULES = tuple(f"pipeline.evaluation.{name}" for name in ("quick", "inputs", "summary"))
EVALUATION_LIBRARIES = ("numpy", "scipy", "open3d-cpu", "libigl")
# Parts of the configuration that decide no result, or that the report shows otherwise.
OUTSIDE_THE_REPORT = {"experiments", "demo", "store", "limits", "download", "allow_empty"}


@functools.cache
def pinned_versions() -> dict[str, str]:
    """Distribution → version of the lock file that both commands of the README install from."""
    pins = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    return {name.lower().replace("_", "-"): version.split("+")[0] for name, version in pins}


def _model_modules(model: dict[str, Any]) -> list[str]:
    """Files of a model and of those it builds on."""
    inner = _model_modules(model["parent"]) if "parent" in model else []
    return [f"pipeline.models.{model['method']}", *inner]


class Plan:
    """Paths, instances and fingerprints of one study. All paths are relative to the working directory."""

    def __init__(self, study: Study, experiments: tuple[Settings, ...]) -> None:
        self.study = study
        self.experiments = {e.name: e for e in experiments}
        self.scratch = self._scratch()
        self.blocks = {**self.experiments, **self.scratch}
        self.results = f"results/{study.dataset}"
        self.source = self._source_settings()
        self.listing = fingerprint.key_of("listing", self.source, self._shard_settings())[:12]
        self.shards = self._shards()
        self.test_shards = [str(k) for k in range(study.shards.test)]
        self.instances = self._instances()

    def _scratch(self) -> dict[str, Settings]:
        """Experiments with published weights, as they are trained by those who ask for training: from scratch."""
        return {
            f"{name}-scratch": e.model_copy(update={"name": f"{name}-scratch", "weights": None})
            for name, e in self.experiments.items()
            if getattr(e, "weights", None)
        }

    # --- source and shards

    @property
    def prepared(self) -> dict[str, stages.Stage] | None:
        """The data stages of a prepared set, which read its files; None where shapes start as meshes."""
        source = self.study.source
        return stages.PREPARED[source.layout] if source.kind == "prepared" else None

    @property
    def categories(self) -> list[str]:
        """Folder names of the categories: synsets, or the names a directory's block gives."""
        source = self.study.source
        if source.kind == "demo":
            return [synset_of(name) for name in self.study.demo.categories]
        return list(source.categories or ("all",))

    def _source_settings(self) -> dict[str, Any]:
        source = self.study.source.model_dump(mode="json")
        if self.study.source.kind == "demo":
            source["demo"] = self.study.demo.model_dump(mode="json", exclude={"experiments"})
        return source

    def _shard_settings(self) -> dict[str, Any]:
        shards = {c: self.shard_count(c) for c in self.categories}
        return {"shards": shards, "test_shards": self.study.shards.test, "lists": self._lists_digest()}

    def _lists_digest(self) -> str:
        """Content of the files that say which shapes train, validate and test; empty where a hash does."""
        path = self.study.source.split.path
        if self.study.source.split.kind != "files":
            return ""
        found = [(category, file) for file, category in list_files(Path(path).expanduser())]
        try:
            rows = [[category, file.name, files.digest_of(file.read_bytes())] for category, file in found]
        except OSError as problem:
            # A prepared set holds its lists, so it may be the whole set that is not there.
            place = getattr(self.study.source, "path", None)
            if place is not None and not Path(place).expanduser().exists():
                raise ConfigError(f"source.path: there is no {place}. Is its disk mounted?") from None
            message = f"source.split.path: the lists at {path} cannot be read ({problem.strerror})"
            raise ConfigError(message) from None
        return fingerprint.key_of(rows)

    def shard_count(self, category: str) -> int:
        counts = {self._folder_of(row.category): row.shards for row in self.study.shards.categories}
        return counts.get(category, self.study.shards.per_category)

    def _folder_of(self, category: str) -> str:
        """A category as the folders name it."""
        return category if self.study.source.kind == "directory" else synset_of(category)

    def _shards(self) -> list[tuple[str, str]]:
        return [(c, str(k)) for c in self.categories for k in range(self.shard_count(c))]

    @property
    def archives(self) -> list[str]:
        """Names of the archives that `download_source` fetches; none where the user brings the shapes."""
        if self.study.source.kind == "demo":
            return self.categories
        source = self.study.source
        return [
            archive_name(row.category, source.version).removesuffix(".zip") for row in getattr(source, "archives", ())
        ]

    # --- instances

    def _instances(self) -> list[str]:
        """All data stages that some experiment or the evaluation needs, in the order of the data's path."""
        wanted = {*self.evaluation_instances, *(f"voxelize/{r}" for r in self.study.stages.voxelize.resolutions)}
        for experiment in self.experiments.values():
            wanted.update(self.training_instances(experiment.name))
            wanted.update(self.observation_instances(experiment.name))
        return self.with_upstream(sorted(wanted))

    @property
    def evaluation_instances(self) -> list[str]:
        """Data stages that the evaluation reads."""
        return [name for name in EVALUATION_STAGES if self.prepared is None or name in self.prepared]

    @property
    def reference(self) -> str:
        """Data stage of the true shapes: meshes, or surface samples where a prepared set has no meshes."""
        return self.evaluation_instances[0]

    @property
    def dropped(self) -> list[str]:
        """Instances whose files are removed once everything that reads them is done."""
        return [i for i in self.instances if i.split("/")[0] in self.study.store.drop]

    def readers(self, instance: str) -> list[str]:
        """Files that are there once everything that reads an instance is done."""
        later = [i for i in self.instances if instance in self.upstream(i).values()]
        done = [self.check(i) for i in (instance, *later)]
        for name in self.trained:
            if instance in self.training_instances(name):
                done.append(f"{self.results}/training/{name}/checkpoint.json")
        for name in self.reconstructing:
            if instance in self.observation_instances(name):
                done += [f"{self.results}/meshes/{name}/{shard}.jsonl" for shard in self.test_shards]
            if instance in self.evaluation_instances:
                done += [f"{self.results}/evaluation/raw/{name}/{shard}.jsonl" for shard in self.test_shards]
        for name in self.generators:
            if instance == self.reference:
                done.append(f"{self.results}/evaluation/samples/{name}.json")
        return [*done, f"{self.results}/report/index.html"]

    def upstream(self, instance: str) -> dict[str, str]:
        """Argument name → instance that a data stage reads; none for those that read raw files."""
        if self.prepared is not None:
            self._require_given(instance, self.prepared)
            return {}
        return stages.upstream(instance, self.stage_settings(instance))

    def _require_given(self, instance: str, given: dict[str, stages.Stage]) -> None:
        """Raises ConfigError where the prepared set cannot give an instance."""
        stage, _, variant = instance.partition("/")
        coarse = (stage, self.study.source.layout) != ("voxelize", "imnet") or stages.IMNET_VOXELS % int(variant) == 0
        if stage in given and coarse:
            return
        asking = [
            name
            for name in self.experiments
            if instance in (*self.training_instances(name), *self.observation_instances(name))
        ]
        whose = f", which {', '.join(asking)} asks for," if asking else ""
        if stage in given:
            size = stages.IMNET_VOXELS
            raise ConfigError(f"{instance}{whose} cannot be made of the {size}^3 voxels of IM-NET's files; use {size}")
        raise ConfigError(
            f"{instance}{whose} is made of meshes, which a prepared set has not; one of the layout "
            f"{self.study.source.layout} gives {', '.join(given)}"
        )

    def with_upstream(self, instances: list[str]) -> list[str]:
        """Instances and everything they stand on, in the order of the data's path."""
        complete, waiting = set(instances), list(instances)
        while waiting:
            found = [i for i in self.upstream(waiting.pop()).values() if i not in complete]
            complete.update(found)
            waiting += found
        order = list(stages.STAGES)
        return sorted(complete, key=lambda i: (order.index(i.split("/")[0]), i))

    def _expand(self, names: tuple[str, ...]) -> list[str]:
        """Instances of stage names: every sigma; signed distances bring their points."""
        found: list[str] = []
        if self._samples_in_one and "compute_sdf" in names:
            names = tuple(name for name in names if name not in ("sample_boundary", "sample_volume"))
        for name in names:
            if name == "sample_boundary":
                found += [f"{name}/{sigma:g}" for sigma in self.study.stages.sample_boundary.sigmas]
            elif name == "compute_sdf" and not self._samples_in_one:
                found += [stages.point_set_instance(s) for s in self.stage_settings(name)["of"]] + [name]
            else:
                found.append(name)
        return list(dict.fromkeys(found))

    @property
    def _samples_in_one(self) -> bool:
        """Signed distances come with their points, as DeepSDF's files have them, not for points of other stages."""
        return self.prepared is not None and "compute_sdf" in self.prepared

    def training_instances(self, experiment: str) -> list[str]:
        """Data stages whose arrays the training of an experiment reads."""
        return self._expand(self.declaration(experiment).training_stages)

    def observation_instances(self, experiment: str) -> list[str]:
        """Data stages whose arrays its inference reads."""
        return self._expand(self.declaration(experiment).observation_stages)

    def declaration(self, experiment: str) -> Declaration:
        block = self.blocks[experiment]
        return registry.declaration(block.method, block.model)

    @property
    def trained(self) -> list[str]:
        """Experiments whose weights are trained here."""
        return [n for n in self.experiments if self.declaration(n).trains != "nothing" and n not in self.fetched]

    @property
    def fetched(self) -> list[str]:
        """Experiments whose weights are published ones."""
        return [name for name, e in self.experiments.items() if getattr(e, "weights", None)]

    @property
    def trained_or_fetched(self) -> list[str]:
        """Experiments with a checkpoint."""
        return [name for name in self.experiments if self.declaration(name).trains != "nothing"]

    @property
    def quick(self) -> list[str]:
        """Experiments whose fields `quick_eval` asks directly, without meshes."""
        if self.prepared is not None and not self.prepared.keys() >= QUICK_STAGES:
            return []  # the set has nothing to ask the fields about
        return [name for name in self.trained_or_fetched if self._answers_quickly(self.declaration(name))]

    @staticmethod
    def _answers_quickly(declaration: Declaration) -> bool:
        """A generator that observes nothing of a given shape has no field of that shape."""
        draws_only = declaration.generates and not declaration.observation_stages
        return declaration.trains == "gradient" and declaration.quantity != "surface" and not draws_only

    def quick_instances(self, experiment: str) -> list[str]:
        """Data stages that the quick evaluation of an experiment reads."""
        instances = [*self.observation_instances(experiment), "sample_surface", "sample_volume", "voxelize/32"]
        return list(dict.fromkeys(instances))

    @property
    def generators(self) -> list[str]:
        """Experiments that draw new shapes and reconstruct none."""
        return [name for name in self.experiments if self.declaration(name).generates]

    @property
    def reconstructing(self) -> list[str]:
        """Experiments with a row for every test shape."""
        return [name for name in self.experiments if not self.declaration(name).generates]

    def parent(self, experiment: str) -> str | None:
        """Name of the experiment that this one builds on."""
        return getattr(self.blocks[experiment], "parent", None)

    def gpus(self, experiment: str, training: bool = False) -> int:
        """Graphics cards that a job of an experiment asks for."""
        declaration = self.declaration(experiment)
        if declaration.trains != "gradient" and not declaration.batched:
            return 0
        return self.blocks[experiment].runtime.devices if training else 1

    def batched(self, experiment: str) -> bool:
        """Whether test shapes are reconstructed together on the device, not each in a process of its own."""
        return self.declaration(experiment).trains != "nothing" or self.declaration(experiment).batched

    @property
    def encoding(self) -> list[str]:
        """Experiments whose codes can be exported."""
        return [n for n in self.reconstructing if n in self.trained_or_fetched and n != MEAN_SHAPE]

    def weights_file(self, experiment: str) -> list[str]:
        """The user's own file of published weights; none where they are fetched."""
        path = self.experiments[experiment].weights.path
        return [str(Path(path).expanduser())] if path else []

    def sample_numbers(self, experiment: str, block: str) -> tuple[int, int]:
        """First number and count of the shapes of one block of samples."""
        sampling = self.experiments[experiment].sampling
        first = int(block) * sampling.block
        return first, min(sampling.block, sampling.count - first)

    def sample_blocks(self, experiment: str) -> list[str]:
        """Numbers of the jobs that draw a generator's shapes."""
        sampling = self.experiments[experiment].sampling
        return [str(k) for k in range(-(-sampling.count // sampling.block))]

    # --- settings and fingerprints

    def stage_settings(self, instance: str) -> dict[str, Any]:
        """The slice of the configuration that one instance reads."""
        stage, _, variant = instance.partition("/")
        block = getattr(self.study.stages, stage).model_dump(mode="json")
        if stage == "compute_sdf" and self._samples_in_one:
            near = self.study.stages.sample_boundary
            return {"count": self.study.stages.sample_volume.count + len(near.sigmas) * near.count}
        if stage == "sample_boundary":
            block["sigma"] = float(variant)
            del block["sigmas"]
        elif stage == "voxelize":
            block["resolution"] = int(variant)
            del block["resolutions"]
        elif stage == "compute_sdf" and block["of"] is None:
            sigmas = self.study.stages.sample_boundary.sigmas
            block["of"] = ["volume", *(f"boundary-{sigma:g}" for sigma in sigmas)]
        return block

    def work(self, name: str) -> dict[str, Any]:
        """Everything that decides one stage's result, as it is written beside the results for its jobs.

        name: an instance, "list_shapes", or "train_model/<experiment>", "generate_meshes/<experiment>",
        "evaluate_meshes".
        """
        stage, _, variant = name.partition("/")
        if stage in stages.STAGES:
            return self._data_work(name)
        if stage in self._plain_settings():
            record = self._record(name, PLAIN_MODULES[stage], self._plain_settings()[stage], ())
            return {**record, "layout": self.layout()} if stage in ("make_report", "record_provenance") else record
        if stage == "evaluate_meshes":
            return self._evaluation_work()
        return self._experiment_work(stage, variant)

    def _plain_settings(self) -> dict[str, Any]:
        """Settings of the stages that make no product per shape."""
        return {
            "make_demo_archive": {"demo": self.source.get("demo")},
            "download_source": self._downloads(),
            "list_shapes": {"source": self.source, **self._shard_settings()},
            "check_rejected": {"max_rejected": self.study.max_rejected},
            "drop_products": {},
            "check_tested": {"allow_empty": self.study.allow_empty},
            "summarise": {"evaluation": self.study.evaluation.model_dump(mode="json")},
            "make_report": self.everything(),
            "record_provenance": self.everything(),
        }

    def _downloads(self) -> dict[str, Any]:
        """Addresses by archive name, and the folder below `download.folder` that keeps them."""
        source = self.study.source
        if source.kind == "demo":
            return {"folder": f"demo-{fingerprint.key_of(self.source['demo'])[:12]}", "archives": {}}
        rows = {
            name: row.model_dump() for name, row in zip(self.archives, getattr(source, "archives", ()), strict=True)
        }
        return {"folder": f"ShapeNetCore.{getattr(source, 'version', '')}", "archives": rows}

    def layout(self) -> dict[str, Any]:
        """Which files the study consists of, for the report and the provenance."""
        return {
            "instances": self.instances,
            "experiments": self.reconstructing,
            "generators": {name: self.sample_blocks(name) for name in self.generators},
            "trained": self.trained,
            "fetched": self.fetched,
            "shards": self.shards,
            "test_shards": self.test_shards,
            "catalogue": self.catalogue,
            "archives": self.archives,
        }

    def everything(self) -> dict[str, Any]:
        """All that decides results, as it is used: defaults filled in, presets applied, nothing of `runtime`."""
        from pipeline.sources.download import shown_url

        study = self.study.model_dump(mode="json", exclude=OUTSIDE_THE_REPORT)
        for archive in study["source"].get("archives", ()):
            archive["url"] = shown_url(archive["url"])  # without a password or token that it may hold
        if self.study.source.kind == "demo":
            study["demo"] = self.source["demo"]
        experiments = [e.model_dump(mode="json", exclude={"runtime"}) for e in self.experiments.values()]
        for weights in (e["weights"] for e in experiments if e.get("weights")):
            weights["url"] = weights["url"] and shown_url(weights["url"])
        return {**study, "experiments": experiments}

    def _data_work(self, instance: str) -> dict[str, Any]:
        stage = (self.prepared or stages.STAGES)[instance.split("/")[0]]
        settings = self.stage_settings(instance)
        inputs = self.upstream(instance) or {"members": "list_shapes"}
        settings.pop("of", None)  # which point sets there are shows in the inputs
        readings = {self._folder_of(row["category"]): row["interior"] for row in settings.pop("interior_of", ())}
        record = self._record(instance, [stage.module, ENCODING], settings, stage.libraries, random=stage.random)
        return {
            **record,
            "module": stage.module,
            "function": stage.function,
            "settings_class": stage.settings,
            "format": stage.format,
            "upstream": list(inputs),
            "by_category": {c: {"interior": r} for c, r in readings.items() if r != settings["interior"]},
        }

    def _evaluation_work(self) -> dict[str, Any]:
        settings = self.study.evaluation.model_dump(mode="json")
        record = self._record(
            "evaluate_meshes", ["pipeline.evaluation.shape", ENCODING], settings, EVALUATION_LIBRARIES, random=True
        )
        return {
            **record,
            "module": "pipeline.evaluation.shape",
            "function": "evaluate_mesh",
            "settings_class": "EvaluationSettings",
            "format": "json",
            "reads": self.evaluation_instances,
        }

    def _experiment_work(self, stage: str, name: str) -> dict[str, Any]:
        model = self._model_settings(name)
        modules = [ENCODING, *_model_modules(model)]
        block = self.blocks[name].model_dump(mode="json")
        if stage == "train_model":
            settings = {**model, "training": block["training"]}
            modules += ["pipeline.training.loop", "pipeline.shape_arrays"]
            record = self._record(name, modules, settings, TRAINING_LIBRARIES, True, stage)
            return {**record, "reads": self.training_instances(name)}
        if stage == "fetch_weights":
            settings = {**model, "weights": block["weights"]}
            return self._record(name, [*modules, "pipeline.models.weights"], settings, TRAINING_LIBRARIES, False, stage)
        settings = {**model, "inference": block["inference"], "extraction": block["extraction"]}
        if stage == "sample_shapes":
            modules.append("pipeline.reconstruction.samples")
            return {**self._record(name, modules, settings, GENERATION_LIBRARIES, True, stage), "format": "off"}
        if stage == "evaluate_samples":
            settings = {"sampling": block["sampling"]}
            return self._record(name, ["pipeline.evaluation.generators"], settings, EVALUATION_LIBRARIES, True, stage)
        if stage == "evaluate_fields":
            settings["extraction"] = self._extraction(name, "checkpoint", "batch_shapes", "batch_points")
            record = self._record(name, [*modules, *QUICK_MODULES], settings, GENERATION_LIBRARIES, True, stage)
            return {**record, "reads": self.quick_instances(name)}
        modules.append("pipeline.reconstruction.shapes")
        reads = {"reads": self.observation_instances(name)}
        if stage == "encode_shapes":
            settings["extraction"] = self._extraction(name, "checkpoint", "batch_shapes")
            return {**self._record(name, modules, settings, GENERATION_LIBRARIES, True, stage), **reads}
        return {
            **self._record(name, modules, settings, GENERATION_LIBRARIES, True, stage),
            **reads,
            "module": "pipeline.reconstruction.shapes",
            "function": "reconstruct_alone",
            "settings_class": "GenerationSettings",
            "format": "off",
        }

    def _model_settings(self, name: str) -> dict[str, Any]:
        """Method and settings of a model, and the same of the one that it builds on."""
        block = self.blocks[name].model_dump(mode="json")
        parent = self.parent(name)
        # A child starts from the weights that its parent's own row in the tables is made with.
        inner = {"parent": {**self._model_settings(parent), **self._extraction(parent, "checkpoint")}} if parent else {}
        start = self.declaration(name).starts_from
        given = {"starts_from": _digest_of_file(name, start)} if start else {}
        return {"method": block["method"], "model": block["model"], **inner, **given}

    def _extraction(self, name: str, *keys: str) -> dict[str, Any]:
        """The settings of an experiment's extraction that also decide what is made without it."""
        block = self.blocks[name].extraction.model_dump(mode="json")
        return {key: block[key] for key in keys}

    def _record(
        self, name: str, modules: list[str], settings: dict, libraries: tuple, random: bool = False, stage: str = ""
    ) -> dict[str, Any]:
        """stage: given for experiments, whose name is in no fingerprint: renaming one computes nothing."""
        pins = {library: self._pin(library) for library in libraries}
        # The root seed decides random stages only, through the key of a shape.
        key = fingerprint.fingerprint(stage or name, settings, modules, pins)
        return {
            "instance": stage or name,
            "fingerprint": key,
            "settings": settings,
            "libraries": pins,
            "random": random,
            "seed": self.study.seed,
            "code": fingerprint.code_digest(tuple(sorted(modules))),
            "modules": sorted(modules),
        }

    @staticmethod
    def _pin(library: str) -> str:
        try:
            return pinned_versions()[library]
        except KeyError:
            raise ConfigError(f"{LOCK.name} does not pin {library}, which decides results") from None

    @functools.cache  # noqa: B019 - one plan lives as long as the process
    def fingerprint(self, name: str) -> str:
        """The digest of `work(name)` that Snakemake sees as the rule's only parameter, and its settings file's name.

        It covers the whole file, or an edit that changes only what a job reads would leave the old file in place. The
        root seed counts for random stages alone.
        """
        return fingerprint.params_key(self.work(name))

    # --- files

    def members(self, category: str, shard: str) -> str:
        return f"{self.results}/shapes/{self.listing}/members/{category}/{shard}.jsonl"

    def sample_ledgers(self, experiment: str) -> list[str]:
        return [f"{self.results}/samples/{experiment}/{block}.jsonl" for block in self.sample_blocks(experiment)]

    def test_members(self, shard: str) -> str:
        return f"{self.results}/shapes/{self.listing}/test/{shard}.jsonl"

    @property
    def catalogue(self) -> str:
        return f"{self.results}/shapes/{self.listing}/catalogue.csv"

    def ledger(self, instance: str, category: str, shard: str) -> str:
        return f"{self.results}/data/{instance}/{category}/{shard}.jsonl"

    def ledgers(self, instance: str) -> list[str]:
        """The ledgers of all shards of an instance."""
        return [self.ledger(instance, category, shard) for category, shard in self.shards]

    def check(self, instance: str) -> str:
        return f"{self.results}/checks/{instance}.json"

    def settings_file(self, name: str) -> str:
        return f"{self.results}/settings/{self.fingerprint(name)}.json"

    def works(self) -> list[str]:
        """Names of all stages of the study, for `work` and `fingerprint`."""
        made = ["make_demo_archive"] if self.study.source.kind == "demo" else []
        asked_quickly = [instance for name in self.quick for instance in self.quick_instances(name)]
        return [
            *made,
            *(name for name in PLAIN_MODULES if name != "make_demo_archive"),
            *dict.fromkeys([*self.instances, *self.with_upstream(asked_quickly)]),
            *(f"train_model/{name}" for name in (*self.trained, *self.scratch)),
            *(f"fetch_weights/{name}" for name in self.fetched),
            *(f"generate_meshes/{name}" for name in self.reconstructing),
            *(f"encode_shapes/{name}" for name in self.encoding),
            *(f"{stage}/{name}" for name in self.generators for stage in ("sample_shapes", "evaluate_samples")),
            *(f"evaluate_fields/{name}" for name in self.quick),
            "evaluate_meshes",
        ]

    def runtime(self) -> dict[str, Any]:
        """What jobs must know that decides no result."""
        return {
            "dataset": self.study.dataset,
            "results": self.results,
            "reference": self.reference,
            "store": self.study.store.model_dump(mode="json", exclude={"drop"}),
            "limits": {"seconds": self.study.limits.seconds, "memory_mb": self.study.limits.memory_mb},
            "download": self.study.download.model_dump(mode="json"),
            "experiments": {name: e.runtime.model_dump(mode="json") for name, e in self.blocks.items()},
        }


def _digest_of_file(experiment: str, path: str) -> str:
    try:
        with open(Path(path).expanduser(), "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as problem:
        message = f"experiment {experiment}: the weights to start from, {path}, cannot be read ({problem.strerror})"
        raise ConfigError(message) from None
