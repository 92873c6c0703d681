"""Configuration files: read safely, and laid over each other."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

TAB = "\t"
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
    """A YAML mapping of at most 1 MB. Raises ConfigError with the file's name, and where in it the mistake is."""
    path = Path(path)
    try:
        if path.stat().st_size > 2**20:
            raise ConfigError(f"{path}: larger than 1 MB; is this a configuration?")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(_missing(path)) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not text in UTF-8 (byte {error.start}); is this a configuration?") from None
    except OSError as error:
        raise ConfigError(f"{path}: it cannot be read ({error.strerror})") from None
    try:
        value = yaml.load(text, _StrictLoader)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{path}{_explained(error, text)}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None
    except ConfigError as error:
        raise ConfigError(f"{path}, {error}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        start = yaml.compose(text).start_mark
        found = "a list" if isinstance(value, list) else "text without them"
        raise ConfigError(f"{path}{_place(start)}: expected keys and values, as in `dataset: mine`, found {found}")
    return value


def _missing(path: Path) -> str:
    """What to say of a file that is not there, with the one that may be meant."""
    folder = path.absolute().parent
    if not folder.is_dir():
        return f"there is no file {path}: its folder {folder} does not exist"
    beside = {other.stem: other for other in sorted(folder.iterdir()) if other.suffix in (".yaml", ".yml", ".json")}
    close = difflib.get_close_matches(path.stem, beside, 1, 0.5)
    if not close:
        return f"there is no file {path} in {folder}; type --configfile and the path of yours"
    return f"there is no file {path} in {folder}; did you mean --configfile {path.with_name(beside[close[0]].name)}?"


def _explained(error: yaml.MarkedYAMLError, text: str) -> str:
    """Line, column and what is wrong there, in words that need no knowledge of YAML's grammar."""
    problem, mark = error.problem or "", error.problem_mark or error.context_mark
    if problem.startswith("could not find expected ':'"):
        # The problem is noticed on the next line; the line without a colon is where the key began.
        return f"{_place(error.context_mark)}: expected `key: value`, found text without a colon"
    if mark is None:
        return f": {error}"
    lines = text.split("\n")
    line = lines[mark.line] if mark.line < len(lines) else ""
    indent = line[: len(line) - len(line.lstrip())]
    if TAB in indent or problem.startswith("found character '\\t'"):
        return f"{_place(mark, line.index(TAB))}: a tab; YAML is indented by spaces"
    if problem.startswith("mapping values are not allowed"):
        return f"{_place(mark)}: a colon where none is expected; indent the line as its neighbours, or quote the text"
    return f"{_place(mark)}: {problem}"


def _place(mark: yaml.Mark, column: int | None = None) -> str:
    return f", line {mark.line + 1}, column {(mark.column if column is None else column) + 1}"
