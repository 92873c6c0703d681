"""Which libraries the modules of the package import, for the tests that compare them with pins."""

from __future__ import annotations

import ast
import functools

from pipeline.config import ROOT


@functools.cache
def imported_libraries(module: str) -> frozenset[str]:
    """The top-level names of everything but `pipeline` that a module imports, wherever in its text."""
    text = ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8")
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return frozenset(names - {"pipeline", "__future__"})
