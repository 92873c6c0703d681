"""What is looked at before Snakemake reads anything: the configuration files of its command line.

Called by profiles/default. Needs no library but yaml, which Snakemake has too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.overlays import ConfigError, read_yaml

OWN = "workflow_config.yaml"


def check_configfiles(argv: Sequence[str] | None = None) -> None:
    """Raise SystemExit with file, line and column where a configuration file is missing or cannot be read."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--configfile", "--configfiles", nargs="*", default=[])
    parser.add_argument("--directory", "-d", default=".")
    given, _ = parser.parse_known_args(sys.argv[1:] if argv is None else list(argv))
    own = Path(given.directory) / OWN
    try:
        for path in (*([own] if own.is_file() else []), *map(Path, given.configfile)):
            read_yaml(path)
    except ConfigError as problem:
        raise SystemExit(f"error: {problem}") from None
