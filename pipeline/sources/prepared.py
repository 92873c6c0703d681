"""A set that another project prepared: samples, voxels and views instead of meshes. Its layout is one of

onet: `<category>/<id>/{points.npz, pointcloud.npz, model.binvox, img_choy2016/}` and split lists
`<category>/{train,val,test}.lst`, as Occupancy Networks published ShapeNet (dataset_small_v1.1).

imnet: `all_vox256_img_{train,test}.hdf5`, each with a .txt of the `<category>/<id>` of its rows (sheet imnet.md 2.6).

deepsdf: `SdfSamples/<dataset>/<category>/<id>.npz`, with `NormalizationParameters/...npz` and `SurfaceSamples/...ply`
of the same names where there are, and split lists in `splits/` (sheet deepsdf.md 2.5).

`isomill export` writes all three.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipeline.settings import Settings
from pipeline.sources.archives import ReadLimits
from pipeline.sources.splits import SplitSettings
from pipeline.sources.taxonomy import synset_of

OWN_LISTS = {"onet": "", "imnet": "", "deepsdf": "splits"}  # folder of a set's split lists


def _synsets(names: object) -> object:
    return tuple(synset_of(name) for name in names) if isinstance(names, list | tuple) else names


class PreparedSettings(Settings):
    """The unpacked set."""

    kind: Literal["prepared"] = "prepared"
    """This source."""

    layout: Literal["onet", "imnet", "deepsdf"] = "onet"
    """Whose files it holds: Occupancy Networks', IM-NET's HDF5 or DeepSDF's samples."""

    path: str = Field(min_length=1)
    """The folder that holds the categories' folders (onet), the HDF5 files (imnet) or SdfSamples (deepsdf)."""

    dataset: str | None = None
    """Name of the folder below SdfSamples (deepsdf); null: the only one there."""

    categories: Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_synsets)]
    """Categories by name ("chair") or synset ("03001627", with quotes)."""

    split: SplitSettings
    """How shapes are divided; left out: by the lists that lie in the set. IM-NET's have no validation shapes."""

    limits: ReadLimits = ReadLimits()
    """How much one file of a shape may hold."""

    @model_validator(mode="before")
    @classmethod
    def _own_lists(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("split") is None and isinstance(values.get("path"), str):
            folder = OWN_LISTS.get(values.get("layout", "onet"), "")
            path = "/".join(filter(None, (values["path"], folder)))
            return {**values, "split": {"kind": "files", "path": path}}
        return values


import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.sources.catalogue import Entry, Found, RawFile, Report, entries_of, read_raw, readable, silent
from pipeline.sources.errors import SourceError

# Layout → data stage → the file it reads, and those beside it that it needs as well.
FILES = {
    "onet": {
        "sample_surface": "pointcloud.npz",
        "sample_volume": "points.npz",
        "voxelize": "model.binvox",
        "render_views": "img_choy2016/cameras.npz",
    },
    "deepsdf": {
        "sample_surface": "SurfaceSamples and NormalizationParameters",
        "compute_sdf": "SdfSamples",
    },
}
PICTURE = re.compile(r"\d+\.(jpg|png)")
MOST_PICTURES = 1000
IMNET = "all_vox256_img"
IMNET_DATASETS = {"sample_surface": "voxels", "sample_volume": "voxels", "voxelize": "voxels", "render_views": "pixels"}
IMNET_FORMS = {"voxels": (64, 64, 64, 1), "pixels": (24, 137, 137)}
SURFACE, NORMALISATION = "surface.ply", "normalisation.npz"  # what the stages call the files beside DeepSDF's samples


def list_prepared(settings: PreparedSettings, report: Report = silent) -> list[Entry]:
    """Every shape of the categories; the location names the file of each data stage.

    location: {"kind": "parts", "layout", "parts": {stage: a file's location, as in `catalogue.Entry`, or a row's:
    {"kind": "row", "path", "bytes", "mtime_ns", "dataset", "row", "rows"}}}. A shape without a single file is refused
    with the reason; one without some is refused later by the stages that miss theirs. Raises SourceError where a
    category or what the layout cannot do without is missing.
    """
    root = Path(settings.path).expanduser()
    if settings.layout == "imnet":
        found = list(_imnet_shapes(root, settings.categories))
    elif settings.layout == "deepsdf":
        found = _deepsdf_shapes(root, settings, report)
    else:
        found = _onet_shapes(root, settings)
    return entries_of(found, settings.split, report)


def part_of(location: Mapping[str, Any], stage: str) -> Mapping[str, Any]:
    """The location of the file that a data stage reads: of a prepared set its own, else the mesh's.

    Raises Rejected where the shape has none.
    """
    from pipeline.arrays import Rejected

    if location["kind"] != "parts":
        return location
    if stage not in location["parts"]:
        raise Rejected(f"the set has no {FILES[location['layout']][stage]} of it")
    return location["parts"][stage]


def read_part(location: Mapping[str, Any], stage: str) -> RawFile:
    """What a data stage reads of a shape: a file as `catalogue.read_raw`, or the bytes of a row of a file.

    Raises as `part_of` and `read_raw`.
    """
    part = part_of(location, stage)
    if part["kind"] != "row":
        return read_raw(part)
    from pipeline.sources.hdf5 import read_row

    path, dataset = Path(part["path"]), part["dataset"]
    return RawFile(read_row(path, dataset, part["row"], part["rows"], IMNET_FORMS[dataset]), path.name)


def _imnet_shapes(root: Path, categories: tuple[str, ...]) -> Iterator[Found]:
    """The rows of both files; a shape that stands in two rows of one is refused."""
    files = [root / f"{IMNET}_{split}.hdf5" for split in ("train", "test")]
    files = [path for path in files if path.exists() or path.with_suffix(".txt").exists()]
    if not files:
        raise SourceError(f"the prepared set at {root} has neither {IMNET}_train.hdf5 nor {IMNET}_test.hdf5")
    missing = set(categories)
    for path in files:
        names = _imnet_names(path.with_suffix(".txt"))
        counts = Counter(names)
        status = _status(path)
        file = {"path": path.as_posix(), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
        for row, name in enumerate(names):
            category, _, shape = name.partition("/")
            missing.discard(category)
            if category not in categories:
                continue
            if counts[name] > 1:
                yield Found(category, shape, {}, f"it stands in {counts[name]} rows of {path.name}")
                continue
            place = {"kind": "row", **file, "row": row, "rows": len(names)}
            parts = {stage: {**place, "dataset": dataset} for stage, dataset in IMNET_DATASETS.items()}
            yield Found(category, shape, {"kind": "parts", "layout": "imnet", "parts": parts}, None)
    if missing:
        raise SourceError(f"the prepared set at {root} has no shape of {sorted(missing)[0]}")


def _imnet_names(path: Path) -> list[str]:
    _status(path)
    try:
        names = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}, the names of the rows, cannot be read: {error}") from error
    for row, name in enumerate(names):
        if not re.fullmatch(r"[^/]+/[^/]+", name):
            raise SourceError(f"{path}: row {row} is {name!r}, not category/id")
    return names


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror})") from error


def _deepsdf_shapes(root: Path, settings: PreparedSettings, report: Report) -> list[Found]:
    samples = root / "SdfSamples"
    sets = sorted(path.name for path in samples.iterdir() if path.is_dir()) if samples.is_dir() else []
    wanted = settings.dataset or (sets[0] if len(sets) == 1 else None)
    if wanted not in sets:
        there = f"those are {', '.join(sets)}; name one as source.dataset" if sets else "there is none"
        raise SourceError(
            f"the prepared set at {root} needs a folder SdfSamples/{settings.dataset or '<dataset>'}: {there}"
        )
    found = []
    for category in settings.categories:
        folder = samples / wanted / category
        if not folder.is_dir():
            raise SourceError(f"the prepared set at {root} has no folder SdfSamples/{wanted}/{category}")
        for path in sorted(folder.glob("*.npz")):
            found.append(_deepsdf_shape(root, f"{wanted}/{category}/{path.stem}", category, settings.limits))
    if not any("sample_surface" in shape.location.get("parts", ()) for shape in found):
        report(
            "the set has no SurfaceSamples with NormalizationParameters, so nothing can be evaluated: ask for "
            "train_all, generate_all or encode_all"
        )
    return found


def _deepsdf_shape(root: Path, place: str, category: str, limits: ReadLimits) -> Found:
    files = {
        "SdfSamples": f"SdfSamples/{place}.npz",
        SURFACE: f"SurfaceSamples/{place}.ply",
        NORMALISATION: f"NormalizationParameters/{place}.npz",
    }
    shape, rows = readable(place.rsplit("/", 1)[1]), {}
    for name, file in files.items():
        row, reason = _file(root / file, limits)
        if reason:
            return Found(category, shape, {}, f"{file}: {reason}")
        if row:
            rows[name] = row
    if "SdfSamples" not in rows:
        return Found(category, shape, {}, f"{files['SdfSamples']} leads nowhere")
    framed = SURFACE in rows and NORMALISATION in rows
    beside = [{"name": name, "path": rows[name]["path"]} for name in (SURFACE, NORMALISATION) if framed]
    parts = {"compute_sdf": {"kind": "file", **rows["SdfSamples"], "companions": beside}}
    if framed:
        parts["sample_surface"] = {"kind": "file", **rows[SURFACE], "companions": beside[1:]}
    return Found(category, shape, {"kind": "parts", "layout": "deepsdf", "parts": parts}, None)


def _onet_shapes(root: Path, settings: PreparedSettings) -> list[Found]:
    found = []
    for category in settings.categories:
        folder = root / category
        if not folder.is_dir():
            raise SourceError(f"the prepared set at {root} has no folder {category}")
        with os.scandir(folder) as entries:
            shapes = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        found += [_onet_shape(folder / name, category, readable(name), settings.limits) for name in shapes]
    return found


def _onet_shape(folder: Path, category: str, name: str, limits: ReadLimits) -> Found:
    parts = {}
    for stage, file in FILES["onet"].items():
        row, reason = _file(folder / file, limits)
        if reason:
            return Found(category, name, {}, f"{file}: {reason}")
        if row:
            parts[stage] = {"kind": "file", **row}
    if not parts:
        return Found(category, name, {}, f"its folder has none of {', '.join(FILES['onet'].values())}")
    if "render_views" in parts:
        # Not asked for their sizes: that would be a million questions for the whole set.
        pictures = sorted(name for name in os.listdir(folder / "img_choy2016") if PICTURE.fullmatch(name))
        beside = [f"img_choy2016/{name}" for name in pictures[:MOST_PICTURES]]
        beside += [FILES["onet"]["sample_volume"]] if "sample_volume" in parts else []
        rows = [{"name": name.split("/")[-1], "path": (folder / name).as_posix()} for name in beside]
        parts["render_views"]["companions"] = rows
    return Found(category, name, {"kind": "parts", "layout": "onet", "parts": parts}, None)


def _file(path: Path, limits: ReadLimits) -> tuple[dict[str, Any] | None, str | None]:
    """A file's row and why it is refused; neither where it is not there."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except OSError as error:
        return None, f"it cannot be read ({error.strerror})"
    if not stat.S_ISREG(status.st_mode):
        return None, "it is not a regular file"
    if status.st_size > limits.max_bytes:
        return None, f"it holds {status.st_size:,} bytes, more than the limit of {limits.max_bytes:,}"
    return {"path": path.as_posix(), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}, None
