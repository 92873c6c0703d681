"""What the helpers share: the study that `snakemake` would run here with the same files."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline import commands
from pipeline.config import ROOT, load_study
from pipeline.overlays import ConfigError, merge, read_yaml
from pipeline.plan import Plan


def add_config_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--configfile", type=Path, nargs="*", default=[], help="files laid over workflow_config.yaml, as for snakemake"
    )


def read_plan(configfiles: list[Path]) -> Plan:
    """The plan of the working directory's configuration. Raises SystemExit with the mistake."""
    commands.remember(configfiles)
    own = Path("workflow_config.yaml")
    try:
        config = read_yaml(own if own.is_file() else ROOT / own.name)
        for path in configfiles:
            config = merge(config, read_yaml(path))
        return Plan(*load_study(config))
    except (ConfigError, OSError) as problem:
        raise SystemExit(f"error: {problem}") from None
