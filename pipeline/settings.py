"""What every settings class shares: frozen, unknown keys refused, numbers finite.

A module that can be configured starts with its settings class and imports its libraries below it. The workflow
reads all settings when it starts, and `settings_class` runs just that head: no numpy, no torch.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import linecache
import math
import sys
import types
from pathlib import Path

from pydantic import BaseModel, ConfigDict

HEAD_IMPORTS = sys.stdlib_module_names | {"pydantic", "pipeline"}


class Settings(BaseModel):
    """Base of all settings classes. Every field carries a default (or is required) and a description with its unit."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def canonical_json(value: object) -> str:
    """The one text of a JSON value: sorted keys, no blanks. Equal values give equal text whatever their order.

    Raises ValueError for NaN and infinity, which JSON does not have; `as_json` makes them null.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def as_json(value: object) -> object:
    """The value with null in place of every number that JSON does not have: NaN and the infinities."""
    if isinstance(value, dict):
        return {key: as_json(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@functools.cache
def module_head(module: str) -> types.ModuleType:
    """Run a module up to its first import of a library that settings do not need.

    `module` is a dotted name such as "pipeline.samples.surface". Raises ModuleNotFoundError where it does not exist.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"there is no module {module}")
    text = Path(spec.origin).read_text(encoding="utf-8")
    tree = ast.parse(text, spec.origin)
    cut = next((i for i, node in enumerate(tree.body) if _loads_library(node)), len(tree.body))
    tree.body = tree.body[:cut]
    head = types.ModuleType(f"{module}:head", ast.get_docstring(tree))
    sys.modules[head.__name__] = head  # pydantic looks annotations up by the class's module
    # A file name of its own, so that pydantic finds the docstrings of fields whether or not the whole module is loaded.
    head.__file__ = f"{spec.origin}:head"
    linecache.cache[head.__file__] = (len(text), None, text.splitlines(keepends=True), head.__file__)
    exec(compile(tree, head.__file__, "exec", dont_inherit=True), head.__dict__)
    return head


def _loads_library(node: ast.stmt) -> bool:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [node.module or ""]
    else:
        return False
    return any(name.split(".")[0] not in HEAD_IMPORTS for name in names)
