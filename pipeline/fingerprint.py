"""What decides a stage's result: its settings, its code and the libraries it declares.

The code of a stage is the closure of `pipeline` modules it imports, at the top or inside functions, found by static
analysis. Comments, docstrings and layout do not count; a module that cannot change a result does not either.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.settings import canonical_json

PACKAGE = Path(__file__).parent
# They read, write, count and report; none of them touches a number that a stage returns.
NEUTRAL = frozenset(
    f"pipeline.{name}"
    for name in (
        "settings",
        "files",
        "processes",
        "store",
        "ledger",
        "progress",
        "fingerprint",
        "models.declaration",
        "models.stage_checks",
    )
)


def key_of(*parts: object) -> str:
    """40 hex digits that identify a JSON value; equal values give equal keys whatever the order of their mappings."""
    return hashlib.blake2b(canonical_json(list(parts)).encode(), digest_size=20).hexdigest()


def params_key(work: Mapping[str, Any]) -> str:
    """The digest of all that a job is told (`Plan.work`); names its settings file. The seed counts where it is used."""
    return key_of("params", {**work, "seed": work["seed"] if work["random"] else None})


def fingerprint(stage: str, settings: dict, modules: Iterable[str], libraries: dict[str, str]) -> str:
    """Name, settings, code digest and library versions of a stage as one key."""
    return key_of("stage", stage, settings, code_digest(tuple(sorted(modules))), libraries)


@functools.cache
def code_digest(modules: tuple[str, ...]) -> str:
    """Digest of the syntax trees of the closure of `modules`."""
    return key_of({name: module_digest(name) for name in closure(modules)})


def closure(modules: Iterable[str]) -> list[str]:
    """All `pipeline` modules that `modules` import, directly or not, themselves included, sorted."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found or name in NEUTRAL:
            continue
        found.add(name)
        waiting += imported_modules(name)
    return sorted(found)


@functools.cache
def imported_modules(module: str) -> tuple[str, ...]:
    """The `pipeline` modules that one module names in import statements anywhere in its text."""
    names: set[str] = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{module} uses a relative import; name the whole module, so that it can be followed")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
            names.add(node.module or "")
    return tuple(sorted(name for name in names if name.startswith("pipeline.") and _file(name)))


@functools.cache
def module_digest(module: str) -> str:
    """Digest of one module's syntax tree."""
    return hashlib.blake2b(serialise(_tree(module)).encode(), digest_size=20).hexdigest()


def serialise(node: object) -> str:
    """A syntax tree as text that is the same on every supported Python.

    Empty fields are left out (newer versions add some) and so are bare strings: docstrings, of attributes too.
    """
    if isinstance(node, ast.AST):
        fields = ((name, getattr(node, name, None)) for name in node._fields)
        inner = (f"{name}={serialise(value)}" for name, value in fields if value not in (None, []) or name == "value")
        return f"{type(node).__name__}({','.join(inner)})"
    if isinstance(node, list):
        return f"[{','.join(serialise(item) for item in node if not _is_bare_string(item))}]"
    return f"{type(node).__name__}:{node!r}"


def _is_bare_string(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _file(module: str) -> Path | None:
    """The file of a module; packages have none of their own, since their `__init__` decides nothing."""
    path = PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py")
    return path if path.is_file() else None


@functools.cache
def _tree(module: str) -> ast.Module:
    path = _file(module)
    if path is None:
        raise ModuleNotFoundError(f"there is no module {module}")
    return ast.parse(path.read_text(encoding="utf-8"), str(path))
