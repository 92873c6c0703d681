"""The shapes of any source, hashed into shards: the catalogue and the member file of every shard.

A shard is a hash of a shape's id, so that added shapes wake the shards they fall into and no others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.settings import canonical_json
from pipeline.sources.catalogue import Entry, Report, silent, write_catalogue
from pipeline.sources.directory import DirectorySettings, list_directory
from pipeline.sources.prepared import PreparedSettings, list_prepared
from pipeline.sources.shapenet import ShapeNetSettings, list_shapenet, shapenet_signature
from pipeline.sources.taxonomy import synset_of

CATALOGUE, MEMBERS, TEST, MEMORY = "catalogue.csv", "members", "test", "listed.json"


def shard_of(identifier: str, count: int) -> int:
    """The shard of a shape among `count`: a hash of its id alone."""
    return int.from_bytes(hashlib.blake2b(identifier.encode(), digest_size=8).digest(), "big") % count


def list_source(
    source: Mapping[str, Any], archives: Path, memory: Any = None, report: Report = silent
) -> tuple[list[Entry] | None, Any]:
    """The entries of a source, and what to remember for a cheaper listing next time.

    source: settings of the source (`Plan.source`). archives: the folder of fetched archives. memory: what an earlier
    call gave; entries are None where it shows that nothing can have changed. Raises SourceError.
    """
    if source["kind"] == "directory":
        return list_directory(DirectorySettings(**source), memory, report)
    if source["kind"] == "prepared":
        entries = list_prepared(PreparedSettings(**source), report)
        signature = hashlib.blake2b(write_catalogue(entries).encode(), digest_size=16).hexdigest()
        return (None, memory) if signature == memory else (entries, signature)
    settings = _shapenet(source)
    folder = None if settings.path and source["kind"] == "shapenet" else archives
    signature = shapenet_signature(settings, folder)
    if memory is not None and memory == signature:
        return None, memory
    return list_shapenet(settings, folder, report), signature


def _shapenet(source: Mapping[str, Any]) -> ShapeNetSettings:
    """The demo is read exactly as ShapeNet is: its archives have that layout."""
    if source["kind"] == "shapenet":
        return ShapeNetSettings(**source)
    synsets = [synset_of(name) for name in source["demo"]["categories"]]
    return ShapeNetSettings(version="v2", path=".", categories=synsets, split=source["split"])


def listing_files(entries: list[Entry], shards: Mapping[str, int], test_shards: int) -> dict[str, str]:
    """Relative file name → text of the catalogue, of all member files and of all test member files.

    shards: category → number of shards. Empty shards get empty files.
    """
    members: dict[str, list[str]] = {f"{MEMBERS}/{c}/{k}.jsonl": [] for c, n in shards.items() for k in range(n)}
    tests: dict[str, list[str]] = {f"{TEST}/{k}.jsonl": [] for k in range(test_shards)}
    for entry in sorted(entries, key=lambda e: (e.category, e.id)):
        shard = shard_of(entry.id, shards[entry.category])
        row = {"shape": f"{entry.category}/{entry.id}", "location": entry.location, "reason": entry.reason or ""}
        members[f"{MEMBERS}/{entry.category}/{shard}.jsonl"].append(canonical_json(row))
        if entry.split == "test":
            test = {"shape": row["shape"], "category": entry.category, "shard": str(shard)}
            tests[f"{TEST}/{shard_of(row['shape'], test_shards)}.jsonl"].append(canonical_json(test))
    texts = {name: "".join(f"{line}\n" for line in lines) for name, lines in (members | tests).items()}
    return {CATALOGUE: write_catalogue(entries), **texts}
