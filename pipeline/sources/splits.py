"""Which shapes train, validate and test: a hash of the id, or the lists a paper published."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.settings import Settings


class SplitSettings(Settings):
    """How shapes are divided."""

    kind: Literal["hash", "files"] = "hash"
    """hash: by a hash of the id, so that new shapes never move the others. files: by lists."""

    train: float = Field(default=0.7, ge=0, le=1)
    """Share of shapes to train on (kind hash). The three shares add up to 1."""

    val: float = Field(default=0.1, ge=0, le=1)
    """Share of shapes to choose checkpoints by (kind hash)."""

    test: float = Field(default=0.2, ge=0, le=1)
    """Share of shapes to report on (kind hash)."""

    path: str | None = None
    """Lists (kind files): a CSV with the columns category,id,split (or SHREC16's all.csv); a folder with
    <category>/train.lst, val.lst and test.lst; DeepSDF's JSON, one file or a folder of them, train, val or test in
    the name; IM-NET's names beside its HDF5, all_vox256_img_train.txt and _test.txt. Shapes in no list are left
    out."""

    @model_validator(mode="after")
    def _consistent(self) -> SplitSettings:
        if self.kind == "files" and not self.path:
            raise ValueError("split.kind is files, so split.path must name the lists")
        if self.kind == "hash" and self.path:
            raise ValueError("split.path names lists, but split.kind is hash, which reads none; add kind: files")
        if self.kind == "hash" and abs(self.train + self.val + self.test - 1) > 1e-6:
            raise ValueError(f"train, val and test must add up to 1, received {self.train} + {self.val} + {self.test}")
        return self


import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pipeline.sources.errors import SplitError

SPLITS = ("train", "val", "test")
LIST_FILES = ("train.lst", "val.lst", "test.lst")
SPELLINGS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

Lists = Mapping[tuple[str, str], str]


def assign_split(category: str, shape: str, settings: SplitSettings, lists: Lists | None = None) -> str | None:
    """train, val or test; None where the lists do not name the shape.

    The hash is of the id alone: a ShapeNet model that stands in two categories is in the same split of both.
    lists: what `read_split_lists` gave, for kind "files".
    """
    if settings.kind == "files":
        lists = lists or {}
        return lists.get((category, shape)) or lists.get(("", shape))
    digest = hashlib.blake2b(shape.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    if place < settings.test:
        return "test"
    return "val" if place < settings.test + settings.val else "train"


def read_split_lists(settings: SplitSettings) -> dict[tuple[str, str], str] | None:
    """(category, id) → split; the category is "" where the lists do not give one. None for kind "hash".

    Raises SplitError where a list cannot be read or a shape stands in two splits.
    """
    if settings.kind == "hash":
        return None
    path = Path(settings.path).expanduser()
    try:
        rows = list(_rows(path))
    except (OSError, UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise SplitError(f"the split lists at {path} cannot be read: {error}") from error
    if not rows:
        raise SplitError(f"{path} holds no split lists: expected a CSV, train.lst/val.lst/test.lst, or DeepSDF's JSON")
    return _merged(rows, path)


def _merged(rows: Iterable[tuple[str, str, str]], path: Path) -> dict[tuple[str, str], str]:
    lists: dict[tuple[str, str], str] = {}
    conflicts: dict[str, str] = {}
    for category, shape, split in rows:
        key = (_category(category), shape)
        other = lists.setdefault(key, split)
        if other != split:
            conflicts["/".join(filter(None, key))] = f"{other} and {split}"
    if conflicts:
        shown = "; ".join(f"{shape} ({splits})" for shape, splits in sorted(conflicts.items())[:3])
        raise SplitError(f"{len(conflicts):,} shapes stand in two splits of {path}: {shown}")
    return lists


def _rows(path: Path) -> Iterator[tuple[str, str, str]]:
    """(category, id, split) of every recognised list in a file or folder."""
    for file, category in list_files(path):
        yield from _file_rows(file, category)


def list_files(path: Path) -> Iterator[tuple[Path, str]]:
    """The files of a file or folder that are read as lists, and the category their folder names ("" for none)."""
    if not path.is_dir():
        yield path, ""
        return
    for inner in sorted(path.iterdir()):
        if inner.is_dir():
            yield from ((inner / name, inner.name) for name in LIST_FILES if (inner / name).is_file())
        elif inner.name in LIST_FILES or (inner.suffix == ".json" and _split_in(inner.stem)) or _is_imnets(inner):
            yield inner, ""


def _file_rows(path: Path, category: str) -> Iterator[tuple[str, str, str]]:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".csv":
        yield from _csv_rows(text, path)
    elif path.suffix == ".json":
        yield from _json_rows(json.loads(text), path)
    elif _is_imnets(path):
        names = (line.strip().partition("/") for line in text.split("\n") if line.strip())
        yield from ((folder, shape, _split_in(path.stem)) for folder, _, shape in names)
    elif path.name in LIST_FILES:
        yield from ((category, line.strip(), path.stem) for line in text.split("\n") if line.strip())
    else:
        raise SplitError(
            f"{path} is no split list: expected .csv, .json, or a folder with train.lst, val.lst, test.lst"
        )


def _csv_rows(text: str, path: Path) -> Iterator[tuple[str, str, str]]:
    table = csv.DictReader(io.StringIO(text, newline=""))
    columns = table.fieldnames or []
    shape, category = ("modelId", "synsetId") if "modelId" in columns else ("id", "category")
    if shape not in columns or "split" not in columns:
        raise SplitError(f"{path} needs the columns category,id,split; it has {', '.join(columns) or 'none'}")
    for row in table:
        split = SPELLINGS.get((row["split"] or "").strip().lower())
        if split is None:
            raise SplitError(f"{path}, line {table.line_num}: split {row['split']!r} is none of {', '.join(SPLITS)}")
        yield (row.get(category) or "").strip(), row[shape].strip(), split


def _json_rows(value: object, path: Path) -> Iterator[tuple[str, str, str]]:
    """DeepSDF: {"ShapeNetV2": {"03001627": [id, ...]}}, one split per file, told by the file's name."""
    split = _split_in(path.stem)
    if split is None:
        raise SplitError(f"{path}: the file name must contain train, val or test, which says what its ids are for")
    try:
        for categories in value.values():
            for category, shapes in categories.items():
                yield from ((category, str(shape), split) for shape in shapes)
    except (AttributeError, TypeError) as error:
        raise SplitError(f'{path} is not of the form {{"dataset": {{"category": ["id", ...]}}}}') from error


def _is_imnets(path: Path) -> bool:
    """IM-NET's list of the names of an HDF5 file's rows, one category/id a line. Other .txt files are no lists."""
    return path.suffix == ".txt" and _split_in(path.stem) is not None and path.with_suffix(".hdf5").exists()


def _split_in(stem: str) -> str | None:
    words = re.split(r"[^a-z]+", stem.lower())
    return next((SPELLINGS[word] for word in words if word in SPELLINGS), None)


def _category(name: str) -> str:
    """Synsets get back the leading zero that spreadsheets take away."""
    return name.zfill(8) if name.isdigit() and len(name) == 7 else name
