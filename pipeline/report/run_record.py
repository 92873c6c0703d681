"""What a caller tells about a run, for `pipeline.report.provenance` to record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NotRequired, TypedDict


class FileRecord(TypedDict):
    """A file by its digest.

    path: relative to the crate's folder; a file elsewhere is named by `url` (http or https), else by its digest.
    digest: "<algorithm>:<hex>", e.g. "sha256:…" or "blake2b-160:…". size: bytes.
    """

    path: str
    digest: str
    size: int
    url: NotRequired[str]
    description: NotRequired[str]
    media_type: NotRequired[str]


class ActionRecord(TypedDict):
    """All jobs of one rule. started, ended: first start and last end, ISO 8601 with time zone."""

    name: str
    started: str
    ended: str
    inputs: Sequence[FileRecord]
    outputs: Sequence[FileRecord]
    description: NotRequired[str]
    status: NotRequired[Literal["completed", "failed"]]
    seconds: NotRequired[float]
    peak_mb: NotRequired[float]


class RunRecord(TypedDict):
    """One run of the workflow.

    agents: names of the people or organisations who ran it. software: distribution → version. environment: variables
    that matter, by an allow-list of the caller. workflow: the Snakefile, kept in the crate or on the web. config: the
    text of the settings and the path it is kept under. inputs, outputs: of the run as a whole, such as archives and
    result tables. actions: in the order of the workflow.
    """

    name: str
    description: str
    version: str
    commit: str
    repository: NotRequired[str]
    license: str
    workflow: FileRecord
    engine: str
    engine_version: str
    started: str
    ended: str
    status: NotRequired[Literal["completed", "failed"]]
    agents: Sequence[str]
    config: dict[Literal["path", "text"], str]
    seeds: dict[str, int]
    software: dict[str, str]
    environment: dict[str, str]
    inputs: Sequence[FileRecord]
    outputs: Sequence[FileRecord]
    actions: Sequence[ActionRecord]
