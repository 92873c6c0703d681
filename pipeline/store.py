"""The content store: one file per shape and stage, named by its key and its content.

`<root>/<stage>/<2 hex>/<key>-<content digest>.<extension>`. A name promises its content, so a damaged file is found
when it is read; files are written under a temporary name and renamed, and never modified. Nothing here is a declared
output of the workflow: Snakemake deletes those before each run of a job.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline import files

SCRATCH = ".tmp"
DROPPED = "dropped"  # extension of what stays of an entry whose content was dropped: a note of how to tell it


@dataclass(frozen=True)
class Entry:
    """A stored file: `file` is its path below the store's root."""

    file: str
    size: int

    @property
    def stage(self) -> str:
        return self.file.split("/")[0]

    @property
    def key(self) -> str:
        return self.file.rsplit("/", 1)[1].split("-")[0]

    @property
    def digest(self) -> str:
        return self.file.rsplit("-", 1)[1].split(".")[0]

    @property
    def extension(self) -> str:
        return self.file.rsplit(".", 1)[1]


class Damaged(Exception):
    """A stored file is missing or does not hold what its name promises."""


class Store:
    """A local store, with other stores that are only read.

    root: where this run writes; made on first use. shared: stores of others, looked into when the own has no entry.
    """

    def __init__(self, root: Path, shared: Iterable[Path] = ()) -> None:
        self.root = Path(root)
        self.roots = (self.root, *(Path(path) for path in shared))
        self._listed: dict[tuple[Path, str], dict[str, str]] = {}

    def have(self, stage: str, key: str) -> Entry | None:
        """The entry of a key by name alone, or None. Reading it is what checks it."""
        for root in self.roots:
            name = self._names(root, f"{stage}/{key[:2]}").get(key)
            if name is not None:
                file = f"{stage}/{key[:2]}/{name}"
                try:
                    return Entry(file, (root / file).stat().st_size)
                except FileNotFoundError:
                    self._listed.pop((root, f"{stage}/{key[:2]}"), None)
        return None

    def holds(self, file: str) -> bool:
        """Whether an entry lies in this store or in one of the shared ones, whole or not."""
        return any((root / file).is_file() for root in self.roots)

    def get(self, file: str) -> bytes:
        """The content of an entry, checked against the digest in its name. Raises Damaged."""
        problem = f"{file} is missing from the store"
        for root in self.roots:
            try:
                content = (root / file).read_bytes()
            except (FileNotFoundError, IsADirectoryError):
                continue
            if files.digest_of(content) == Entry(file, len(content)).digest:
                return content
            problem = f"{file} is damaged: its content is not what its name promises"
        raise Damaged(problem)

    def put(self, stage: str, key: str, content: bytes, extension: str) -> Entry:
        """Store a content under a key; an equal entry that is there already is replaced by the same bytes."""
        folder = f"{stage}/{key[:2]}"
        name = f"{key}-{files.digest_of(content)}.{extension}"
        scratch = self.root / SCRATCH
        scratch.mkdir(parents=True, exist_ok=True)
        files.write_atomic(self.root / folder / name, content, scratch)
        self._names(self.root, folder)[key] = name
        return Entry(f"{folder}/{name}", len(content))

    def refresh(self) -> None:
        """Look at the folders again: other processes may have added to them."""
        self._listed.clear()

    def discard(self, entry: Entry) -> None:
        """Forget a damaged entry of this run's own store."""
        (self.root / entry.file).unlink(missing_ok=True)
        for root in self.roots:
            self._listed.pop((root, f"{entry.stage}/{entry.key[:2]}"), None)

    def drop(self, file: str, note: bytes) -> int:
        """Remove the content of an entry of this run's own store and leave a note in its place; gives bytes freed."""
        path = self.root / file
        if not path.is_file():
            return 0
        size = path.stat().st_size
        files.write_atomic(path.with_suffix(f".{DROPPED}"), note, self.root / SCRATCH)
        path.unlink()
        return size

    def dropped(self, file: str) -> bool:
        """Whether an entry's content was dropped on purpose."""
        note = Path(file).with_suffix(f".{DROPPED}")
        return not self.holds(file) and any((root / note).is_file() for root in self.roots)

    def note(self, file: str) -> bytes:
        """The note that `drop` left for an entry, `file` naming either."""
        note = Path(file).with_suffix(f".{DROPPED}")
        return next(root / note for root in self.roots if (root / note).is_file()).read_bytes()

    def list(self, stage: str | None = None) -> Iterator[Entry]:
        """All entries of this run's own store, sorted, of one stage or of all."""
        stages = [stage] if stage else sorted(p.name for p in self.root.glob("[!.]*") if p.is_dir())
        for name in stages:
            for path in sorted((self.root / name).glob("??/*-*.*")):
                yield Entry(f"{name}/{path.parent.name}/{path.name}", path.stat().st_size)

    def sweep(self) -> None:
        """Remove what processes that died were writing."""
        files.sweep_temporaries(self.root / SCRATCH)

    def _names(self, root: Path, folder: str) -> dict[str, str]:
        """Key → file name of one folder, listed once per process."""
        if (root, folder) not in self._listed:
            try:
                names = sorted(os.listdir(root / folder), reverse=True)
            except (FileNotFoundError, NotADirectoryError):
                names = []
            self._listed[root, folder] = {name.split("-")[0]: name for name in names if "-" in name}
        return self._listed[root, folder]
