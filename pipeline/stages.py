"""The data stages: which function makes what from what.

An *instance* is a stage with the variant it is run for, for example "sample_boundary/0.1" or "voxelize/64"; stages
without variants are their own instance. This table is all a new stage needs besides its module, rule and settings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Stage:
    """module, function: the pure function, called with its inputs, `settings=` and, if random, `rng=`.

    settings: the name of the settings class in that module. format: how the product is stored (`pipeline.files`).
    inputs: argument name → upstream instance. libraries: distributions that decide the result.
    random: the result depends on the root seed and the shape's id.
    """

    name: str
    module: str
    settings: str
    format: str
    libraries: tuple[str, ...]
    random: bool = False

    @property
    def function(self) -> str:
        return self.name


_TABLE = (
    Stage("extract_meshes", "pipeline.meshes.read", "ReadSettings", "mesh", ("numpy", "manifold3d")),
    Stage(
        "make_watertight",
        "pipeline.meshes.watertight",
        "WatertightSettings",
        "mesh",
        ("numpy", "scipy", "scikit-image", "open3d-cpu", "manifold3d", "pymeshlab", "libigl"),
    ),
    Stage("scale_to_off", "pipeline.meshes.scale", "ScaleSettings", "off", ("numpy",)),
    Stage(
        "sample_surface", "pipeline.samples.surface", "SurfaceSettings", "arrays", ("numpy", "open3d-cpu"), random=True
    ),
    Stage(
        "sample_boundary",
        "pipeline.samples.boundary",
        "BoundarySettings",
        "arrays",
        ("numpy", "open3d-cpu"),
        random=True,
    ),
    Stage("sample_volume", "pipeline.samples.volume", "VolumeSettings", "arrays", ("numpy", "open3d-cpu"), random=True),
    Stage("compute_sdf", "pipeline.samples.sdf", "SdfSettings", "arrays", ("numpy", "scipy", "open3d-cpu")),
    Stage("voxelize", "pipeline.samples.voxels", "VoxelSettings", "arrays", ("numpy", "open3d-cpu")),
    Stage(
        "render_views",
        "pipeline.samples.views",
        "ViewSettings",
        "arrays",
        ("numpy", "open3d-cpu", "pillow"),
        random=True,
    ),
)
STAGES = {stage.name: stage for stage in _TABLE}


def _read(name: str, layout: str, **changes: Any) -> Stage:
    """A data stage as a layout gives it."""
    stage = replace(STAGES[name], libraries=("numpy", "pillow"), random=False)
    return replace(stage, module="pipeline.exchange." + READERS[layout], **changes)


# The stages of a prepared set (`pipeline.sources.prepared`) read what others made: same names and, but for
# DeepSDF's samples, the same settings and arrays. By layout; those marked random choose among what there is.
IMNET_VOXELS = 64  # along an edge of the only grid in IM-NET's files; coarser ones are made of it
READERS = {"onet": "prepared", "imnet": "prepared_imnet", "deepsdf": "prepared_deepsdf"}
PREPARED = {
    "onet": {name: _read(name, "onet") for name in ("sample_surface", "sample_volume", "voxelize", "render_views")},
    "imnet": {
        "sample_surface": _read("sample_surface", "imnet", random=True),
        "sample_volume": _read("sample_volume", "imnet", random=True),
        "voxelize": _read("voxelize", "imnet"),
        "render_views": _read("render_views", "imnet"),
    },
    "deepsdf": {
        "sample_surface": _read("sample_surface", "deepsdf", random=True),
        "compute_sdf": _read("compute_sdf", "deepsdf", random=True, settings="SampleSettings"),
    },
}


def stage_of(instance: str) -> Stage:
    """The stage of an instance: "sample_boundary/0.1" → sample_boundary."""
    return STAGES[instance.split("/")[0]]


def upstream(instance: str, settings: dict[str, Any]) -> dict[str, str]:
    """Argument name → upstream instance of a data stage; "sets:<name>" are the point sets of `compute_sdf`."""
    stage = instance.split("/")[0]
    if stage == "extract_meshes":
        return {}
    if stage == "make_watertight":
        return {"raw": "extract_meshes"}
    if stage == "scale_to_off":
        return {"watertight": "make_watertight", "raw": "extract_meshes"}
    if stage == "compute_sdf":
        return {"mesh": "scale_to_off", **{f"sets:{name}": point_set_instance(name) for name in settings["of"]}}
    return {"mesh": "scale_to_off"}


def point_set_instance(name: str) -> str:
    """The instance that makes a named point set: "volume" or "boundary-<sigma>"."""
    return "sample_volume" if name == "volume" else f"sample_boundary/{name.removeprefix('boundary-')}"
