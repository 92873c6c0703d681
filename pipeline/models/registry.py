"""Which models exist: the files of this folder that define a DECLARATION, and the only import by name."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import types
from pathlib import Path

from pipeline.models.declaration import Declaration
from pipeline.settings import Settings, module_head

FOLDER = Path(__file__).parent


@functools.cache
def available_models() -> tuple[str, ...]:
    """Names of all models, sorted. Files are read, not imported."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.py") if _declares(path)))


def head(name: str) -> types.ModuleType:
    """The model's ModelSettings, InferenceSettings and DECLARATION, without torch. Raises ValueError if unknown."""
    return module_head(_module(name))


def declaration(name: str, settings: Settings) -> Declaration:
    """The facts about a model with these ModelSettings."""
    module = head(name)
    return module.declare(settings) if hasattr(module, "declare") else module.DECLARATION


def load(name: str) -> types.ModuleType:
    """The model's whole module, with `build`. Raises ValueError if unknown."""
    return importlib.import_module(_module(name))


def _module(name: str) -> str:
    if name not in available_models():
        near = difflib.get_close_matches(name, available_models(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"there is no model {name!r}{hint} Available: {', '.join(available_models())}")
    return f"pipeline.models.{name}"


def _declares(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    targets = (target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets)
    return any(isinstance(target, ast.Name) and target.id == "DECLARATION" for target in targets)
