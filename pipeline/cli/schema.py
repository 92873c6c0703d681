"""`isomill schema`: every key of the configuration with its allowed values, as JSON schema."""

from __future__ import annotations

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing to say."""


def run(arguments: argparse.Namespace) -> None:
    from pipeline.config import json_schema

    print(json.dumps(json_schema(), indent=1, ensure_ascii=False, allow_nan=False))
