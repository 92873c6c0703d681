"""Receipts: under which fingerprint, and from what, a job made its outputs. They decide what is current.

Beside the results of a study lies one receipt for every job that ended well, `receipts/<its first output>.json`. It
names the fingerprint, the content digest of each output and the content digest of each input as the job found it.
Snakemake's own records can be lost, or say what is not so after a job that failed (snakemake#2966); a receipt holds
only where the files themselves do. It closes with a digest of itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline import files, ledger

FOLDER = "receipts"


@dataclass(frozen=True)
class Receipt:
    """made, read: path → content digest of outputs and inputs. limits: the smallest ones that shapes ran into."""

    fingerprint: str
    made: dict[str, str]
    read: dict[str, str]
    limits: dict[str, float] = field(default_factory=dict)


def path_of(results: Path, output: str | Path) -> Path:
    """Where the receipt of the job with a first output lies, both below the results of one study."""
    return results / FOLDER / f"{Path(output).relative_to(results)}.json"


def digests_of(paths: Iterable[str | Path]) -> dict[str, str]:
    """Path → content digest of files."""
    return {str(path): files.digest_of_file(Path(path)) for path in paths}


def write(results: Path, fingerprint: str, read: Mapping[str, str], outputs: Iterable[str | Path]) -> None:
    """Write the receipt of a job that has made `outputs` from `read` (`digests_of` its inputs, taken before)."""
    made = digests_of(outputs)
    limits: dict[str, float] = {}
    for path in made:
        for name, value in ledger.limits_hit(Path(path)).items():
            limits[name] = min(value, limits.get(name, value))
    receipt = Receipt(fingerprint, made, dict(read), limits)
    files.write_sealed(path_of(results, next(iter(made))), asdict(receipt))


def read(path: Path) -> Receipt:
    """Read a receipt. Raises FileNotFoundError where there is none, ValueError where it is damaged."""
    value: Any = files.read_sealed(path)
    try:
        return Receipt(**value)
    except TypeError:
        raise ValueError(f"{path} is not a receipt") from None


def withdraw(results: Path, output: str | Path) -> None:
    """Make the outputs of a job due: what they speak of is not there any more."""
    path_of(results, output).unlink(missing_ok=True)


def renew(results: Path, output: str | Path, changed: Iterable[str | Path]) -> None:
    """Take up outputs that the main process itself has brought up to date (the members of a source on disk)."""
    path = path_of(results, output)
    before = read(path)
    files.write_sealed(path, asdict(before) | {"made": {**before.made, **digests_of(changed)}})
