"""The records of all studies below results/: receipts and what they speak of, ledgers, settings, listings.

What is found damaged is due at the next run anyway (pipeline/freshness.py); `isomill store verify` names it, and
`isomill store repair` takes it away.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline import files, ledger, receipts
from pipeline.fingerprint import params_key
from pipeline.sources.listing import MEMORY

RESULTS = Path("results")
LEDGERS = ("data/**/*.jsonl", "meshes/**/*.jsonl", "evaluation/raw/**/*.jsonl", "samples/**/*.jsonl")
# Other outputs that name files of the store: checkpoints theirs, comparisons of generators their descriptors.
NAMING = ("training/*/checkpoint.json", "evaluation/samples/*.json")


def studies() -> list[Path]:
    """The folders of results of all studies here."""
    return sorted(path for path in RESULTS.glob("*") if path.is_dir())


def naming_records() -> Iterator[Path]:
    """All outputs that name files of the store."""
    for study in studies():
        for pattern in (*LEDGERS, *NAMING):
            yield from sorted(study.glob(pattern))


def named_by(path: Path) -> list[str] | None:
    """Files of the store that one ledger, checkpoint or comparison names; None where it cannot be read."""
    try:
        if path.suffix == ".jsonl":
            return [row.file for row in ledger.read(path).rows.values() if row.accepted]
        value = files.read_json(path)
        if "descriptors" in value:
            return list(value["descriptors"])
        return [value["file"], *filter(None, [value.get("history_file")])]
    except (ValueError, KeyError, TypeError):
        return None


def named_files() -> set[str]:
    """Files of the store that some record below results/ names."""
    return {file for path in naming_records() for file in named_by(path) or ()}


def problems() -> Iterator[tuple[Path, str]]:
    """(record, what is wrong with it) for every record that is not as it was written."""
    for study in studies():
        yield from _receipt_problems(study)
        yield from _settings_problems(study)
        for path in sorted(study.glob(f"shapes/*/{MEMORY}")):
            if not _sealed(path):
                yield path, "is damaged"
    for path in naming_records():
        if named_by(path) is None:
            yield path, "is damaged"
        elif not receipts.path_of(_study_of(path), path).is_file():
            yield path, "has no receipt"


def orphans() -> Iterator[Path]:
    """Receipts that speak of an output which is not there."""
    for study in studies():
        for path in sorted((study / receipts.FOLDER).glob("**/*.json")):
            if not all(Path(output).is_file() for output in receipts.read(path).made):
                yield path


def _study_of(path: Path) -> Path:
    return Path(*path.parts[:2])


def _receipt_problems(study: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted((study / receipts.FOLDER).glob("**/*.json")):
        try:
            receipt = receipts.read(path)
        except ValueError:
            yield path, "is damaged"
            continue
        for output, digest in receipt.made.items():
            problem = _output_problem(Path(output), digest)
            if problem:
                yield Path(output), problem


def _output_problem(output: Path, digest: str) -> str | None:
    try:
        same = files.digest_of_file(output) == digest
    except OSError:
        return "is missing"
    return None if same else "is not as it was made"


def _settings_problems(study: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted((study / "settings").glob("*.json")):
        if not _right_settings(path):
            yield path, "is not what its name promises"


def _right_settings(path: Path) -> bool:
    try:
        value: Any = files.read_json(path)
        # What decides no result has a name of its own and is written anew by every run.
        return path.name == "runtime.json" or params_key(value) == path.stem
    except (ValueError, KeyError, TypeError):
        return False


def _sealed(path: Path) -> bool:
    try:
        files.read_sealed(path)
    except ValueError:
        return False
    return True
