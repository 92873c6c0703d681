"""ShapeNetCore v1 and v2: unpacked trees, one archive per category, or one archive of everything.

v1 keeps `<synset>/<model>/model.obj`, v2 `<synset>/<model>/models/model_normalized.obj`. The two are normalised
differently and must never be mixed, so the layout that is found has to be the one that is asked for.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipeline.settings import Settings
from pipeline.sources.archives import ReadLimits
from pipeline.sources.splits import SplitSettings
from pipeline.sources.taxonomy import quoted_hint, synset_of


def _synset(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(quoted_hint(value))
    return synset_of(value) if isinstance(value, str) else value


def _some(categories: tuple[str, ...]) -> tuple[str, ...]:
    if not categories:
        raise ValueError("name at least one category")
    return categories


Synset = Annotated[str, BeforeValidator(_synset)]


class ArchiveAddress(Settings):
    """One archive to fetch."""

    category: Literal["all"] | Synset
    """The category it holds, by name or synset; all: one archive of every category."""

    url: str = Field(min_length=1)
    """https:// address, file:// address, or path."""

    sha256: str | None = Field(default=None, pattern=r"^[0-9a-fA-F]{64}$")
    """Digest of the archive; without it only its size and structure are checked."""

    bytes: int | None = Field(default=None, ge=1)
    """Size of the archive, shown before the download and checked after it."""


class ShapeNetSettings(Settings):
    """ShapeNetCore as the user has it, or where to get it."""

    kind: Literal["shapenet"] = "shapenet"
    """This source."""

    version: Literal["v1", "v2"] = "v2"
    """Which release; the layout on disk must agree."""

    path: str | None = None
    """A folder with `<synset>/` trees, `<synset>.zip` archives or ShapeNetCore.<version>.zip; or that archive."""

    archives: tuple[ArchiveAddress, ...] = ()
    """Archives to fetch, in place of `path`."""

    categories: Annotated[tuple[Synset, ...], AfterValidator(_some)]
    """Categories by name ("chair") or synset ("03001627", with quotes)."""

    split: SplitSettings = SplitSettings()
    """How shapes are divided into training, validation and test."""

    limits: ReadLimits = ReadLimits()
    """How much one raw file or archive may hold."""

    @model_validator(mode="after")
    def _consistent(self) -> ShapeNetSettings:
        if (self.path is None) == (not self.archives):
            raise ValueError("give either path (what you have) or archives (what to fetch)")
        held = {address.category for address in self.archives}
        missing = [category for category in self.categories if category not in held]
        if self.archives and "all" not in held and missing:
            raise ValueError(f"archives holds no archive of {', '.join(missing)}")
        for what, names in (("categories", self.categories), ("archives", [row.category for row in self.archives])):
            if len(set(names)) < len(names):
                raise ValueError(f"{what} names a category twice")
        return self


import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.sources import taxonomy
from pipeline.sources.archives import Member, list_members, unsafe_name
from pipeline.sources.catalogue import Entry, Found, Report, entries_of, readable, silent
from pipeline.sources.errors import SourceError

MESH = {"v1": "model.obj", "v2": "models/model_normalized.obj"}
OTHER = {"v1": "v2", "v2": "v1"}


def archive_name(category: str, version: str) -> str:
    """The file name under which a fetched archive is kept and found again."""
    return f"ShapeNetCore.{version}.zip" if category == "all" else f"{category}.zip"


def list_shapenet(settings: ShapeNetSettings, folder: Path | None = None, report: Report = silent) -> list[Entry]:
    """Every model of the categories, with a reason where it cannot be read.

    folder: where the fetched archives lie; by default `settings.path`. Raises SourceError where a category is
    missing or has the layout of the other version, ArchiveError where an archive cannot be listed.
    """
    places = _places(settings, folder)
    found: list[Found] = []
    for place in dict.fromkeys(places.values()):
        synsets = [synset for synset in settings.categories if places[synset] == place]
        if place.is_dir():
            found += _tree(place, synsets[0], settings)
        else:
            found += _archive(place, synsets, settings)
    for synset, place in places.items():
        _check_layout([shape for shape in found if shape.category == synset], synset, place, settings.version)
    return entries_of(_without_children(found, report), settings.split, report)


def shapenet_signature(settings: ShapeNetSettings, folder: Path | None = None) -> dict[str, Any]:
    """JSON that changes whenever `list_shapenet` could give something else; archives are not opened for it."""
    signature: dict[str, Any] = {}
    for synset, place in _places(settings, folder).items():
        status = place.stat()
        if place.is_dir():
            rows = (f"{shape.id}\0{shape.location}\0{shape.reason}" for shape in _tree(place, synset, settings))
            signature[synset] = hashlib.blake2b("\n".join(rows).encode(), digest_size=16).hexdigest()
        else:
            signature[synset] = [place.name, status.st_size, status.st_mtime_ns]
    return signature


def _places(settings: ShapeNetSettings, folder: Path | None) -> dict[str, Path]:
    """Synset → its tree or archive."""
    root = Path(folder or settings.path or "").expanduser()
    if not root.exists():
        raise SourceError(f"the folder of ShapeNet, {root}, does not exist")
    return {synset: _place(root, synset, settings.version) for synset in settings.categories}


def _place(root: Path, synset: str, version: str) -> Path:
    if root.is_file():
        return root
    whole = archive_name("all", version)
    for base in (root, root / f"ShapeNetCore.{version}"):
        if (base / synset).is_dir():
            return base / synset
        if (base / f"{synset}.zip").is_file():
            return base / f"{synset}.zip"
    if (root / whole).is_file():
        return root / whole
    present = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    hint = " (version 2 has no such category)" if version == "v2" and synset in taxonomy.ONLY_V1 else ""
    raise SourceError(
        f"{root} has neither {synset}/ nor {synset}.zip nor {whole} for category {taxonomy.name_of(synset)}{hint}; "
        f"it holds {', '.join(present[:8]) or 'nothing'}{' …' if len(present) > 8 else ''}"
    )


def _tree(folder: Path, synset: str, settings: ShapeNetSettings) -> Iterator[Found]:
    """The models of an unpacked category; every folder in it is one."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise SourceError(f"{folder} cannot be read: {error.strerror}") from error
    for name in names:
        path = f"{folder.as_posix()}/{name}"
        if name.startswith(".") or not os.path.isdir(path):
            continue
        if readable(name) != name:
            yield Found(synset, readable(name), {}, "the name of its folder is not valid UTF-8")
            continue
        yield Found(synset, name, *_mesh_file(path, settings))


def _mesh_file(folder: str, settings: ShapeNetSettings) -> tuple[dict[str, Any], str | None]:
    """Location and reason of one unpacked model."""
    path = f"{folder}/{MESH[settings.version]}"
    location: dict[str, Any] = {"kind": "file", "path": path}
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return location, _no_mesh(settings.version, os.path.exists(f"{folder}/{MESH[OTHER[settings.version]]}"))
    except OSError as error:
        return location, f"it cannot be read ({error.strerror})"
    if not stat.S_ISREG(status.st_mode):
        return location, "it is not a regular file"
    if status.st_size > settings.limits.max_bytes:
        return location, f"it holds {status.st_size:,} bytes, more than the limit of {settings.limits.max_bytes:,}"
    return location | {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}, None


def _archive(path: Path, synsets: list[str], settings: ShapeNetSettings) -> Iterator[Found]:
    """The models of the categories that stand in one archive.

    Model folders stand below a folder of the synset, or, in an archive named after its category, at the root.
    """
    members = list_members(path, settings.limits)
    trusted = []
    for member in members:
        if unsafe_name(member.name) is None:
            trusted.append(member)
        elif member.name.lower().endswith(".obj"):
            yield Found(synsets[0], ascii(member.name)[1:-1], {}, member.reason)
    for synset in synsets:
        below = [(member, _below(member.parts, synset)) for member in trusted]
        if not any(parts for _, parts in below) and path.stem == synset:
            below = [(member, member.parts) for member in trusted]
        yield from _models(path, synset, below, settings.version)


def _below(parts: list[str], synset: str) -> list[str]:
    """What follows the synset's folder, which stands at the root or in one folder; [] for members elsewhere."""
    return parts[parts.index(synset) + 1 :] if synset in parts[:2] else []


def _models(path: Path, synset: str, below: Iterable[tuple[Member, list[str]]], version: str) -> Iterator[Found]:
    meshes: dict[str, Member] = {}
    other_layout: dict[str, bool] = defaultdict(bool)
    for member, parts in below:
        if len(parts) < 2 or any(part.startswith(".") or part == "__MACOSX" for part in parts):
            continue
        model, inner = parts[0], "/".join(parts[1:])
        other_layout[model] |= inner == MESH[OTHER[version]]
        if inner == MESH[version]:
            meshes[model] = member
    for model in sorted(other_layout):
        if model in meshes:
            yield Found(synset, model, meshes[model].location(path.as_posix()), meshes[model].reason)
        else:
            yield Found(synset, model, {}, _no_mesh(version, other_layout[model]))


def _no_mesh(version: str, other_layout: bool) -> str:
    if other_layout:
        return f"it holds {MESH[OTHER[version]]}, the layout of ShapeNetCore {OTHER[version]}, not {MESH[version]}"
    return f"its folder has no {MESH[version]}"


def _check_layout(found: list[Found], synset: str, place: Path, version: str) -> None:
    """Refuse a category without a single mesh where this version has it."""
    lacking = {_no_mesh(version, True), _no_mesh(version, False)}
    if any(shape.reason not in lacking for shape in found):
        return
    if any(shape.reason == _no_mesh(version, True) for shape in found):
        other = OTHER[version]
        raise SourceError(f"{place} has the layout of ShapeNetCore {other} ({MESH[other]}), not {version}: set version")
    raise SourceError(
        f"{place} holds no {synset}/<model>/{MESH[version]}; if it holds further archives, unpack it once"
    )


def _without_children(found: list[Found], report: Report) -> list[Found]:
    """Drop the models of a child category that its parent, asked for as well, lists too."""
    known = {(shape.category, shape.id) for shape in found}
    kept = [shape for shape in found if (taxonomy.PARENTS.get(shape.category), shape.id) not in known]
    if len(kept) < len(found):
        report(f"{len(found) - len(kept):,} models stand in a category and in its parent; they are listed once")
    return kept
