"""Configuration files: read safely, and laid over each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

MOST_VALUES = 100_000  # of a file, aliases written out


class ConfigError(Exception):
    """The configuration is wrong; the message lists every mistake with its key."""


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings key by key, everything else replaced whole, as Snakemake merges configurations.

    As there, a mapping without keys changes nothing, whatever it is laid over.
    """
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping):
            old = merged.get(key, {})
            value = merge(old if isinstance(old, Mapping) else {}, value) if value else old
        merged[key] = value
    return merged


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML in which the same key twice is an error, not a silent loss, and aliases cannot grow without end."""

    def compose_mapping_node(self, anchor):
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                line = key.start_mark.line + 1
                raise ConfigError(f"line {line}: the key {key.value!r} stands twice in one mapping")
            seen.add(key.value)
        return node

    def get_single_node(self):
        node = super().get_single_node()
        if node is not None and _size(node, {}) > MOST_VALUES:
            raise ConfigError(f"its aliases stand for more than {MOST_VALUES:,} values, or for themselves")
        return node


def _size(node: yaml.Node, known: dict[int, float]) -> float:
    """Values below a node with its aliases written out; infinite for one that holds itself."""
    if id(node) not in known:
        known[id(node)] = float("inf")
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            inner = [part for pair in inner for part in pair]
        known[id(node)] = 1 + sum(_size(part, known) for part in inner)
    return known[id(node)]


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping of at most 1 MB. Raises ConfigError with the file's name."""
    path = Path(path)
    if path.stat().st_size > 2**20:
        raise ConfigError(f"{path}: larger than 1 MB; is this a configuration?")
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None
    except ConfigError as error:
        raise ConfigError(f"{path}, {error}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected keys and values, found a {type(value).__name__}")
    return value
