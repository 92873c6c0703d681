"""Commands that messages tell a person to type: with the configuration files that this run was given.

Without them the same words would speak of another study.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
VARIABLE = "ISOMILL_CONFIGFILES"  # jobs learn of the files by it
SNAKEFILES = ("Snakefile", "snakefile", "workflow/Snakefile", "workflow/snakefile")


def remember(configfiles: Sequence[str | Path]) -> None:
    """Note the files of `--configfile` for this process and those that it starts."""
    os.environ[VARIABLE] = json.dumps([str(path) for path in configfiles], allow_nan=False)


def isomill(*words: str) -> str:
    """A command of Isomill: isomill("store", "repair")."""
    return _joined("isomill", *words, *with_configfiles())


def snakemake(*words: str) -> str:
    """A command of Snakemake, with the Snakefile where it would not be found: snakemake("-n", "eval_all")."""
    found = any(Path(name).is_file() for name in SNAKEFILES)
    snakefile = [] if found else ["-s", str(ROOT / "Snakefile")]
    # What follows --configfile is taken for another file, so it comes last.
    return _joined("snakemake", *words, *snakefile, *with_configfiles())


def with_configfiles(first: Sequence[str | Path] = ()) -> list[str]:
    """The switch that names the files of this run, others before them; nothing where there are none."""
    files = [*map(str, first), *json.loads(os.environ.get(VARIABLE, "[]"))]
    return ["--configfile", *map(_short, files)] if files else []


def _short(path: str) -> str:
    """As seen from the working directory, where it lies below that."""
    if not os.path.isabs(path):
        return path
    below = os.path.relpath(path)
    return path if below.startswith(os.pardir) else below


def _joined(*words: str) -> str:
    return " ".join(shlex.quote(word) for word in words)
