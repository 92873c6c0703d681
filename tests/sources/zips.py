"""Zip archives for tests, well made and hostile."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

TETRAHEDRON = b"v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"


def write_zip(
    path: Path,
    members: Mapping[str, bytes] | list[tuple[str, bytes]],
    spoil: Callable[[list[zipfile.ZipInfo]], None] = lambda infos: None,
    method: int = zipfile.ZIP_DEFLATED,
) -> Path:
    """Write an archive. spoil: changes the list of members before it is written, not the members themselves."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items() if isinstance(members, Mapping) else members:
            info = zipfile.ZipInfo("placeholder")
            info.filename, info.compress_type = name, method  # the constructor would clean the name
            archive.writestr(info, content)
        spoil(archive.filelist)
    path.write_bytes(buffer.getvalue())
    return path


def v2_name(synset: str, model: str) -> str:
    return f"{synset}/{model}/models/model_normalized.obj"
