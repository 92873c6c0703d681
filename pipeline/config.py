"""The whole study: settings classes of all modules put together, presets applied, errors a person can act on.

Only jobs, the command line and the Snakefile import this. Nothing here loads numpy or torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    create_model,
    model_validator,
)

from pipeline import commands
from pipeline.limits import LEAST_MEMORY_MB
from pipeline.mistakes import explained, nearest
from pipeline.models import registry
from pipeline.overlays import ConfigError, merge, read_yaml
from pipeline.settings import Settings, module_head
from pipeline.sources.taxonomy import quoted_hint, synset_of
from pipeline.stages import PREPARED, STAGES
from pipeline.unused import refused_keys

ROOT = Path(__file__).parent.parent
PRESETS = ROOT / "resources" / "presets"
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")
MEAN_SHAPE = "mean-shape"


def _settings(module: str, name: str) -> type[Settings]:
    return getattr(module_head(module), name)


def _part(module: str, name: str) -> Any:
    """Annotation of a block that may be left out: all its fields have defaults."""
    settings = _settings(module, name)
    return settings, Field(default_factory=settings)


def _distinct(values: tuple) -> tuple:
    twice = [value for value in values or () if values.count(value) > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} stands twice")
    return values


def _short(sigma: float) -> float:
    if float(f"{sigma:g}") != sigma:
        raise ValueError("a sigma is named by its first six digits; write no more of them")
    return sigma


def _quoted(category: Any) -> Any:
    if isinstance(category, int) and not isinstance(category, bool):
        raise ValueError(quoted_hint(category))
    return category


def _data_stage(name: str) -> str:
    if name not in STAGES:
        raise ValueError(f"{name!r} is no data stage; those are {', '.join(STAGES)}")
    return name


class StoreConfig(Settings):
    """Where the products of shapes are kept."""

    path: str = "store"
    """Folder this run reads and writes; may be shared by datasets, configurations and users."""

    shared: tuple[str, ...] = ()
    """Further stores that are only read: their shapes are used, never changed."""

    drop: Annotated[tuple[Annotated[str, AfterValidator(_data_stage)], ...], AfterValidator(_distinct)] = (
        "make_watertight",
    )
    """Data stages whose files are removed once everything that reads them is done. Their digests stay, and what is
    asked for again is made again from its inputs, which takes its time."""


def _enough_for_libraries(memory_mb: int) -> int:
    if memory_mb < LEAST_MEMORY_MB:
        raise ValueError(f"the libraries themselves need {LEAST_MEMORY_MB} MB, so no shape could be made with less")
    return memory_mb


class LimitConfig(Settings):
    """What one shape may take before it is rejected. None of it is in a fingerprint, and nothing a limit rejects is
    kept in the store: with a higher one it is tried again."""

    seconds: PositiveFloat = 180.0
    """Seconds of CPU time per shape and stage; also how long a shape may stand still without using any."""

    memory_mb: Annotated[
        int, AfterValidator(_enough_for_libraries), Field(json_schema_extra={"minimum": LEAST_MEMORY_MB})
    ] = 4000
    """Memory per shape and stage above what the loaded libraries take, MB. As many shapes are made at once as fit into
    the memory of their job."""

    max_rejected: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest share of a stage's shapes that may be rejected; null: 0.2, and 1.0 for a directory of meshes."""


class ShardCount(Settings):
    """Shards of one category."""

    category: Annotated[str, BeforeValidator(_quoted)]
    """Category as it is named in the source; ShapeNet's by name or synset."""

    shards: PositiveInt
    """Shards its shapes are hashed into."""


class ShardConfig(Settings):
    """How many shapes go into one job. Changing a count moves shapes between jobs and recomputes none of them."""

    per_category: PositiveInt = 1
    """Shards of every category not listed; about 256 shapes each is right."""

    categories: tuple[ShardCount, ...] = ()
    """Categories with another count."""

    test: PositiveInt = 1
    """Shards of the test shapes of all categories together: jobs of generation and evaluation per experiment."""


def _same_fields(module: str, name: str, *fields: str) -> dict[str, Any]:
    """Some fields of a module's settings, for a block of the configuration that several instances share."""
    known = _settings(module, name).model_fields
    return {field: (known[field].annotation, known[field]) for field in fields}


class CategoryInterior(Settings):
    """The reading of one category's shapes."""

    category: Annotated[str, BeforeValidator(_quoted)]
    """Category as it is named in the source; ShapeNet's by name or synset."""

    interior: Literal["hollow", "solid"]
    """hollow: open shells become thin walls. solid: they are filled."""


class WatertightConfig(_settings("pipeline.meshes.watertight", "WatertightSettings")):
    """How raw meshes are closed."""

    interior_of: tuple[CategoryInterior, ...] = ()
    """Categories that are read otherwise than `interior` says; changing one makes again its shapes alone."""


class _BoundaryBase(Settings):
    """Points near the surface: one stage for every sigma."""

    sigmas: Annotated[
        tuple[Annotated[PositiveFloat, AfterValidator(_short)], ...], Field(min_length=1), AfterValidator(_distinct)
    ] = (0.1, 0.01)
    """Standard deviations of the noise on each axis, canonical units."""


class _SdfBase(Settings):
    """Signed distances of sampled points."""

    of: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_distinct)] | None = None
    """Point sets: "volume" and "boundary-<sigma>"; null: the volume's and every sigma's."""


BoundaryConfig = create_model(
    "BoundaryConfig",
    __base__=_BoundaryBase,
    **_same_fields("pipeline.samples.boundary", "BoundarySettings", "count", "inside", "storage"),
)
SdfConfig = create_model(
    "SdfConfig", __base__=_SdfBase, **_same_fields("pipeline.samples.sdf", "SdfSettings", "method", "votes", "storage")
)


class _VoxelBase(Settings):
    """Occupancy grids over the cube [-0.5, 0.5]^3."""

    resolutions: Annotated[tuple[Annotated[int, Field(ge=1, le=512)], ...], AfterValidator(_distinct)] = ()
    """Cells along each edge of further grids; those that an experiment observes or trains on are made anyway."""


VoxelConfig = create_model(
    "VoxelConfig", __base__=_VoxelBase, **_same_fields("pipeline.samples.voxels", "VoxelSettings", "inside")
)


StageConfig = create_model(
    "StageConfig",
    __base__=Settings,
    __doc__="The data stages, in the order of the data's path.",
    extract_meshes=_part("pipeline.meshes.read", "ReadSettings"),
    make_watertight=(WatertightConfig, WatertightConfig()),
    scale_to_off=_part("pipeline.meshes.scale", "ScaleSettings"),
    sample_surface=_part("pipeline.samples.surface", "SurfaceSettings"),
    sample_boundary=(BoundaryConfig, BoundaryConfig()),
    sample_volume=_part("pipeline.samples.volume", "VolumeSettings"),
    compute_sdf=(SdfConfig, SdfConfig()),
    voxelize=(VoxelConfig, VoxelConfig()),
    render_views=_part("pipeline.samples.views", "ViewSettings"),
)


_split = _settings("pipeline.sources.splits", "SplitSettings")


class DemoSource(Settings):
    """The embedded demo; its numbers stand under `demo`."""

    kind: Literal["demo"]
    """Shapes this project makes itself."""

    split: _split = Field(default_factory=_split)
    """How shapes are divided into training, validation and test."""


_shapenet = _settings("pipeline.sources.shapenet", "ShapeNetSettings")
_directory = _settings("pipeline.sources.directory", "DirectorySettings")
_prepared = _settings("pipeline.sources.prepared", "PreparedSettings")
Source = Annotated[DemoSource | _shapenet | _directory | _prepared, Field(discriminator="kind")]


class WeightsConfig(Settings):
    """Published weights, fetched and converted instead of trained."""

    path: str | None = None
    """A checkpoint file you have, in the original's format or ours."""

    url: str | None = None
    """Or where it can be fetched."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """Digest of the file, checked before it is opened; a fetched file without one is named with the digest it has."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.url is None):
            raise ValueError("name either a path or a url")
        return self


def _parent_field(head: Any) -> dict[str, Any]:
    parent = head.DECLARATION.parent
    if parent is None:
        return {}
    return {"parent": (str, Field(description=f"Name of the experiment it builds on, one of method {parent}."))}


def experiment_class(method: str) -> type[Settings]:
    """The class of an experiment's block for one method."""
    head = registry.head(method)
    weights = (WeightsConfig | None, Field(None, description="Published weights in place of training."))
    # A model that builds on another cannot be made from a file of its own weights alone.
    alone = head.DECLARATION.trains == "gradient" and head.DECLARATION.parent is None
    return create_model(
        f"{method}_experiment",
        __base__=Settings,
        __doc__=(head.__doc__ or "").strip().split("\n")[0],
        **_parent_field(head),
        **({"weights": weights} if alone else {}),
        name=(str, Field(description="Name of the experiment: its row in every table and its folder.")),
        method=(Literal[method], Field(description="File of the model in pipeline/models.")),
        model=(head.ModelSettings, Field(default_factory=head.ModelSettings, description="Network, data and loss.")),
        training=_part("pipeline.training.loop", "TrainingSettings"),
        inference=(
            head.InferenceSettings,
            Field(default_factory=head.InferenceSettings, description="How a shape is encoded at test time."),
        ),
        extraction=_part("pipeline.reconstruction.extract", "ExtractionSettings"),
        sampling=_part("pipeline.evaluation.generators", "GeneratorSettings"),
        runtime=_part("pipeline.training.loop", "RuntimeSettings"),
    )


class DemoConfig(_settings("pipeline.sources.demo", "DemoSettings")):
    """The demo's own numbers; other sources ignore them."""

    experiments: tuple[dict[str, Any], ...] = ()
    """Blocks used by the demo where the list `experiments` is empty."""


class Study(Settings):
    """Everything that is studied, and nothing about the machine it runs on."""

    dataset: Annotated[str, Field(pattern=NAME.pattern)] = "demo"
    """Name of this study: its folder below results/ and logs/."""

    seed: NonNegativeInt = 0
    """Root seed of every random stream."""

    source: Source = DemoSource(kind="demo")
    """Where raw shapes come from."""

    demo: DemoConfig = Field(default_factory=DemoConfig)
    """The embedded demo."""

    allow_empty: bool = False
    """A run whose report compares nothing, without test shapes or with all of them rejected, has not failed."""

    download: _settings("pipeline.sources.download", "DownloadSettings") = Field(
        default_factory=_settings("pipeline.sources.download", "DownloadSettings")
    )
    """Fetching archives."""

    shards: ShardConfig = ShardConfig()
    """Shapes per job."""

    store: StoreConfig = StoreConfig()
    """The content store."""

    limits: LimitConfig = LimitConfig()
    """What one shape may take."""

    stages: StageConfig = Field(default_factory=StageConfig)
    """The data stages."""

    experiments: tuple[dict[str, Any], ...] = ()
    """What is compared: one block per experiment. Empty: the demo's own list for the demo, else screened Poisson."""

    evaluation: _settings("pipeline.evaluation.shape", "EvaluationSettings") = Field(
        default_factory=_settings("pipeline.evaluation.shape", "EvaluationSettings")
    )
    """Metrics and the profiles they are printed by."""

    report: _settings("pipeline.report.page", "ReportSettings") = Field(
        default_factory=_settings("pipeline.report.page", "ReportSettings")
    )
    """The report."""

    @property
    def blocks(self) -> tuple[dict[str, Any], ...]:
        """The blocks of what is compared, as they are written: presets not applied."""
        if self.experiments:
            return self.experiments
        return self.demo.experiments if self.source.kind == "demo" else ({"name": "poisson", "preset": "poisson"},)

    @property
    def max_rejected(self) -> float:
        if self.limits.max_rejected is not None:
            return self.limits.max_rejected
        return 1.0 if self.source.kind == "directory" else 0.2


def load_study(config: Mapping[str, Any]) -> tuple[Study, tuple[Settings, ...]]:
    """Check a merged configuration; give the study and its experiments, the mean shape last.

    Raises ConfigError that names every wrong key, what was received and what is allowed.
    """
    study = _checked(Study, config)
    _check_point_sets(study)
    _check_categories(study, "shards.categories", study.shards.categories)
    _check_categories(study, "stages.make_watertight.interior_of", study.stages.make_watertight.interior_of)
    experiments = _experiments(study)
    _check_parents(experiments)
    _check_stages(study, experiments)
    return study, experiments


def _checked(model: type[Settings], values: Mapping[str, Any], path: str = "") -> Any:
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(explained(error, model, path)) from None


def _check_point_sets(study: Study) -> None:
    known = ["volume", *(f"boundary-{sigma:g}" for sigma in study.stages.sample_boundary.sigmas)]
    for name in study.stages.compute_sdf.of or ():
        if name not in known:
            raise ConfigError(f"stages.compute_sdf.of: {name!r} is not one of {', '.join(known)}{nearest(name, known)}")


def _check_categories(study: Study, path: str, rows: Sequence[ShardCount | CategoryInterior]) -> None:
    """Rows that name a category each name one that is known, once."""
    names = [row.category for row in rows]
    try:
        if study.source.kind != "directory":
            names = [synset_of(name) for name in names]
        _distinct(tuple(names))
        # Rows of ShapeNet categories that this study leaves out are fine: presets name all they know.
        known = (study.source.categories or ("all",)) if study.source.kind == "directory" else names
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no category of the source; those are {', '.join(known)}")
    except ValueError as problem:
        raise ConfigError(f"{path}: {problem}") from None


def _check_parents(experiments: tuple[Settings, ...]) -> None:
    """Every parent exists, is trained, and is what its child builds on."""
    by_name = {experiment.name: experiment for experiment in experiments}
    for child in experiments:
        name = getattr(child, "parent", None)
        if name is None:
            continue
        method = registry.head(child.method).DECLARATION.parent
        of_method = [e.name for e in experiments if e.method == method]
        if name not in by_name:
            known = f"those of method {method}: {', '.join(of_method)}" if of_method else f"none is of method {method}"
            near = nearest(name, list(by_name))
            raise ConfigError(f"experiment {child.name}: its parent {name!r} is no experiment ({known}){near}")
        parent = by_name[name]
        if parent.method != method:
            raise ConfigError(
                f"experiment {child.name}: its parent {name} is of method {parent.method}, but {child.method} builds "
                f"on {method}"
            )
        check = getattr(registry.head(child.method), "check_parent", lambda settings, parent: None)
        if fault := check(child.model, parent.model):
            raise ConfigError(f"experiment {child.name}: its parent {name} does not suit it: {fault}")


def _check_stages(study: Study, experiments: tuple[Settings, ...]) -> None:
    """The data stages give what every experiment asks of them; a prepared set holds what it holds."""
    if study.source.kind == "prepared":
        return
    faults = []
    for experiment in experiments:
        check = getattr(registry.head(experiment.method), "check_stages", lambda settings, inference, stages: None)
        if fault := check(experiment.model, experiment.inference, study.stages):
            faults.append(f"experiment {experiment.name}: {fault}")
    if faults:
        raise ConfigError("\n".join(faults))


def _experiments(study: Study) -> tuple[Settings, ...]:
    of_the_demo = not study.experiments and study.source.kind == "demo"
    path = "demo.experiments" if of_the_demo else "experiments"
    experiments = [_experiment(block, f"{path}.{index}") for index, block in enumerate(study.blocks)]
    names = [e.name for e in experiments]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ConfigError(f"{path}: the name {twice[0]!r} is used twice; every experiment needs its own")
    if MEAN_SHAPE in names:
        raise ConfigError(f"{path}: {MEAN_SHAPE!r} is in every table already; give the block another name")
    layout = study.source.layout if study.source.kind == "prepared" else None
    if layout and "voxelize" not in PREPARED[layout]:
        return tuple(experiments)  # there is nothing to take a mean of
    # Sets of Occupancy Networks hold grids of 32^3 cells and nothing to make finer ones of.
    grid = {"model": {"resolution": 32}} if layout == "onet" else {}
    mean = experiment_class("mean_shape")(name=MEAN_SHAPE, method="mean_shape", extraction=_MEAN_EXTRACTION, **grid)
    return (*experiments, mean)


def preset_notes(study: Study) -> list[str]:
    """What a person should know of the experiments before they run.

    What presets ask of the data stages and this study does otherwise (a preset in a block brings only the block), and
    where published weights stand in for training.
    """
    notes = []
    for block in study.blocks:
        wanted = read_yaml(PRESETS / f"{block['preset']}.yaml").get("stages", {}) if "preset" in block else {}
        for stage, values in wanted.items():
            used = getattr(study.stages, stage).model_dump(mode="json")
            notes += [
                f"{block['name']}: its preset asks for stages.{stage}.{key} = {value}, this study has {used[key]}. "
                f"To follow it: {_laid_under(block['preset'])}"
                for key, value in values.items()
                if used[key] != value
            ]
        if expand_preset(block).get("weights"):
            notes.append(
                f"{block['name']}: published weights are used; `train_all` trains it from scratch as "
                f"{block['name']}-scratch."
            )
    return notes


def _laid_under(preset: str) -> str:
    """The switch that lays this run's files over a preset's."""
    return " ".join(commands.with_configfiles([f"resources/presets/{preset}.yaml"]))


_MEAN_EXTRACTION = {"method": "dense", "resolution": 64, "box": 1.1}


def _experiment(own: Mapping[str, Any], path: str) -> Settings:
    block = expand_preset(own, path)
    name, method = block.get("name"), block.get("method")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(f"{path}.name: {name!r} is no name; use letters, digits and . _ + -")
    methods = registry.available_models()
    if method is None:
        raise ConfigError(f"{path}: name a preset, or a method: {', '.join(methods)}")
    if method not in methods:
        raise ConfigError(f"{path}.method: {method!r} is not one of {', '.join(methods)}{nearest(method, methods)}")
    parent = registry.head(method).DECLARATION.parent
    if "weights" in block and parent:
        raise ConfigError(
            f"{path}.weights: {method} builds on a trained {parent}, so weights of its own are not enough; give "
            f"`weights` to the {parent} experiment and train this one"
        )
    experiment = _checked(experiment_class(method), block, path)
    if faults := refused_keys(own.get("extraction", {}), experiment.extraction, f"{path}.extraction"):
        raise ConfigError("\n".join(faults))
    return experiment


def expand_preset(block: Mapping[str, Any], path: str = "experiments") -> dict[str, Any]:
    """The block laid over the preset it names. Raises ConfigError for a preset that does not exist."""
    block = dict(block)
    name = block.pop("preset", None)
    if name is None:
        return block
    names = sorted(p.stem for p in PRESETS.glob("*.yaml"))
    if name not in names:
        raise ConfigError(f"{path}.preset: {name!r} is not one of {', '.join(names)}{nearest(name, names)}")
    # A preset of a method that builds on another lists that one too.
    own = [row for row in read_yaml(PRESETS / f"{name}.yaml").get("experiments", []) if row["name"] == name]
    if not own:
        raise ConfigError(f"{path}.preset: {name!r} is a whole study; use it with --configfile")
    return merge(own[0], block)


def json_schema() -> dict[str, Any]:
    """JSON schema of the configuration, with one variant of an experiment's block per method."""
    schema = Study.model_json_schema()
    variants, definitions = [], schema.setdefault("$defs", {})
    for method in registry.available_models():
        block = experiment_class(method).model_json_schema(ref_template=f"#/$defs/{method}.{{model}}")
        for name, definition in block.pop("$defs", {}).items():
            definitions[f"{method}.{name}"] = definition
        definitions[method] = block
        variants.append({"$ref": f"#/$defs/{method}"})
    preset = {"type": "object", "required": ["name", "preset"], "properties": {"name": {"type": "string"}}}
    definitions["preset_experiment"] = preset
    items = {"anyOf": [*variants, {"$ref": "#/$defs/preset_experiment"}]}
    schema["properties"]["experiments"]["items"] = items
    definitions["DemoConfig"]["properties"]["experiments"]["items"] = items
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
