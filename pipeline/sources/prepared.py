"""A set that another project prepared: samples, voxels and views instead of meshes.

`<category>/<id>/{points.npz, pointcloud.npz, model.binvox, img_choy2016/}` with `<category>/{train,val,test}.lst`, as
Occupancy Networks published ShapeNet (dataset_small_v1.1) and `isomill export onet` writes it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipeline.settings import Settings
from pipeline.sources.archives import ReadLimits
from pipeline.sources.splits import SplitSettings
from pipeline.sources.taxonomy import synset_of


def _synsets(names: object) -> object:
    return tuple(synset_of(name) for name in names) if isinstance(names, list | tuple) else names


class PreparedSettings(Settings):
    """The unpacked set."""

    kind: Literal["prepared"] = "prepared"
    """This source."""

    layout: Literal["onet"] = "onet"
    """Whose files it holds: Occupancy Networks'."""

    path: str = Field(min_length=1)
    """The folder that holds the categories' folders."""

    categories: Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_synsets)]
    """Categories by name ("chair") or synset ("03001627", with quotes)."""

    split: SplitSettings
    """How shapes are divided; left out: by the lists that lie in the set."""

    limits: ReadLimits = ReadLimits()
    """How much one file may hold."""

    @model_validator(mode="before")
    @classmethod
    def _own_lists(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("split") is None and "path" in values:
            return {**values, "split": {"kind": "files", "path": values["path"]}}
        return values


import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.sources.catalogue import Entry, Found, Report, entries_of, readable, silent
from pipeline.sources.errors import SourceError

# Data stage → the file it reads, and those beside it that it needs as well.
FILES = {
    "sample_surface": "pointcloud.npz",
    "sample_volume": "points.npz",
    "voxelize": "model.binvox",
    "render_views": "img_choy2016/cameras.npz",
}
PICTURE = re.compile(r"\d+\.(jpg|png)")
MOST_PICTURES = 1000


def list_prepared(settings: PreparedSettings, report: Report = silent) -> list[Entry]:
    """Every shape of the categories; the location names the file of each data stage.

    location: {"kind": "parts", "parts": {stage: a file's location, as in `catalogue.Entry`}}. A shape without a single
    file is refused with the reason; one without some is refused later by the stages that miss theirs. Raises
    SourceError where a category is missing.
    """
    root = Path(settings.path).expanduser()
    found = []
    for category in settings.categories:
        folder = root / category
        if not folder.is_dir():
            raise SourceError(f"the prepared set at {root} has no folder {category}")
        with os.scandir(folder) as entries:
            shapes = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        found += [_shape(folder / name, category, readable(name), settings.limits) for name in shapes]
    return entries_of(found, settings.split, report)


def part_of(location: Mapping[str, Any], stage: str) -> Mapping[str, Any]:
    """The location of the file that a data stage reads: of a prepared set its own, else the mesh's.

    Raises Rejected where the shape has none.
    """
    from pipeline.arrays import Rejected

    if location["kind"] != "parts":
        return location
    if stage not in location["parts"]:
        raise Rejected(f"its folder has no {FILES[stage]}")
    return location["parts"][stage]


def _shape(folder: Path, category: str, name: str, limits: ReadLimits) -> Found:
    parts = {}
    for stage, file in FILES.items():
        row, reason = _file(folder / file, limits)
        if reason:
            return Found(category, name, {}, f"{file}: {reason}")
        if row:
            parts[stage] = {"kind": "file", **row}
    if not parts:
        return Found(category, name, {}, f"its folder has none of {', '.join(FILES.values())}")
    if "render_views" in parts:
        # Not asked for their sizes: that would be a million questions for the whole set.
        pictures = sorted(name for name in os.listdir(folder / "img_choy2016") if PICTURE.fullmatch(name))
        beside = [f"img_choy2016/{name}" for name in pictures[:MOST_PICTURES]]
        beside += [FILES["sample_volume"]] if "sample_volume" in parts else []
        rows = [{"name": name.split("/")[-1], "path": (folder / name).as_posix()} for name in beside]
        parts["render_views"]["companions"] = rows
    return Found(category, name, {"kind": "parts", "parts": parts}, None)


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
