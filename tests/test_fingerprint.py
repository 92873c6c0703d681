"""What counts as a change of code, and that nothing a stage imports is forgotten."""

import ast
import importlib.metadata
import re
import sys
from pathlib import Path

import pytest

from pipeline import fingerprint, plan, stages
from pipeline.fingerprint import closure, imported_modules, key_of, serialise
from pipeline.models.registry import available_models
from tests.libraries import imported_libraries

PACKAGE = Path(fingerprint.__file__).parent

EXAMPLE = '''
"""A module."""
from __future__ import annotations

LIMIT = 3.0  # a comment


class Settings:
    """Settings."""

    count: int = 3
    """How many."""


def area(radius: float, *rest, flag=False) -> float:
    """Area."""
    text = f"{radius:.2f} of {rest!r}"
    return 3.14 * radius**2 if flag else len(text)
'''


def digest(text: str) -> str:
    return key_of(serialise(ast.parse(text)))


def test_the_digest_of_a_known_text_holds_on_every_python():
    assert digest(EXAMPLE) == "2ffcf9fee977bcb195434b8fe20636ee671b2372"


@pytest.mark.parametrize(
    "change",
    [
        ("# a comment", "# another comment, much longer"),
        ('"""Area."""', '"""The area of something."""'),
        ('"""How many."""', '"""How many there are."""'),
        ('"""A module."""\n', ""),
        ("LIMIT = 3.0", "LIMIT   =   3.0"),
        ("\n\n\ndef", "\n\n\n\n\n\ndef"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(change):
    assert change[0] in EXAMPLE
    assert digest(EXAMPLE.replace(*change)) == digest(EXAMPLE)


@pytest.mark.parametrize(
    "change",
    [("3.14", "3.15"), ("LIMIT = 3.0", "LIMIT = 3"), ("flag=False", "flag=True"), (".2f", ".3f"), ("of", "at")],
)
def test_every_value_counts(change):
    assert change[0] in EXAMPLE
    assert digest(EXAMPLE.replace(*change)) != digest(EXAMPLE)


def test_keys_do_not_depend_on_the_order_of_mappings():
    assert key_of({"a": 1, "b": [1, 2]}) == key_of({"b": [1, 2], "a": 1})
    assert key_of({"a": 1, "b": [1, 2]}) != key_of({"a": 1, "b": [2, 1]})


STAGE_MODULES = sorted({stage.module for stage in stages.STAGES.values()})
ROOTS = [*STAGE_MODULES, "pipeline.evaluation.shape", "pipeline.reconstruction.shapes", "pipeline.training.loop"]


@pytest.mark.parametrize("root", ROOTS)
def test_no_module_a_stage_really_loads_is_missing_from_its_closure(root):
    """Import the stage and everything its closure names in a fresh interpreter; nothing else of ours may appear."""
    import subprocess

    program = (
        f"import sys, importlib\n"
        f"for name in {closure([root])!r}: importlib.import_module(name)\n"
        f"print(*sorted(n for n in sys.modules if n.startswith('pipeline.')))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    modules = {name for name in loaded if (PACKAGE.parent / f"{name.replace('.', '/')}.py").is_file()}
    assert modules - fingerprint.NEUTRAL <= set(closure([root]))


def test_imports_inside_functions_are_followed():
    assert "pipeline.geometry.closest" in closure(["pipeline.samples.sdf"])


def test_the_registry_of_models_is_the_only_import_by_name():
    """Everything whose code counts; jobs, commands and the vocabulary that runs them are not part of a result."""
    watched = [p for p in PACKAGE.rglob("*.py") if p.relative_to(PACKAGE).parts[0] not in ("jobs", "cli")]
    guilty = []
    for path in watched:
        names = {getattr(node, "attr", getattr(node, "id", "")) for node in ast.walk(ast.parse(path.read_text()))}
        if names & {"import_module", "__import__", "exec", "find_spec"}:
            guilty.append(path.relative_to(PACKAGE).as_posix())
    assert sorted(guilty) == ["models/registry.py", "settings.py"]


def test_packages_decide_nothing():
    """`__init__` files are outside the closure, so they may only offer names."""
    for path in PACKAGE.rglob("__init__.py"):
        body = ast.parse(path.read_text()).body
        rest = [n for n in body if not fingerprint._is_bare_string(n) and getattr(n, "name", "") != "__getattr__"]
        assert not rest, path


IMPORTED_AS = {
    "skimage": "scikit-image",
    "open3d": "open3d-cpu",
    "igl": "libigl",
    "lightning_fabric": "lightning-fabric",
}
# PIL packs views without loss; the services only see what a training writes anyway.
NOT_DECIDING = {"pydantic", "safetensors", "PIL", "wandb", "comet_ml"}


PINNED = {stage.name: ([stage.module], stage.libraries) for stage in stages.STAGES.values()}
PINNED["evaluate_meshes"] = (["pipeline.evaluation.shape"], plan.EVALUATION_LIBRARIES)
PINNED["train_model"] = (["pipeline.training.loop"], plan.TRAINING_LIBRARIES)
PINNED["generate_meshes"] = (["pipeline.reconstruction.shapes"], plan.GENERATION_LIBRARIES)
PINNED |= {name: ([f"pipeline.models.{name}"], plan.GENERATION_LIBRARIES) for name in available_models()}


@pytest.mark.parametrize(("modules", "libraries"), PINNED.values(), ids=PINNED)
def test_every_library_a_stage_imports_is_pinned_in_its_fingerprint(modules, libraries):
    imported = {name for module in closure(modules) for name in imported_libraries(module)}
    third_party = {IMPORTED_AS.get(n, n) for n in imported - sys.stdlib_module_names} - NOT_DECIDING
    assert third_party <= set(libraries)


def test_pinned_versions_are_the_installed_ones():
    from pipeline.plan import pinned_versions

    for stage in stages.STAGES.values():
        for name in stage.libraries:
            assert pinned_versions()[name] == importlib.metadata.version(name).split("+")[0]


def test_relative_imports_are_refused(tmp_path, monkeypatch):
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "wrong.py").write_text("from . import files\n")
    monkeypatch.setattr(fingerprint, "PACKAGE", tmp_path / "pipeline")
    with pytest.raises(ValueError, match=re.escape("pipeline.wrong uses a relative import")):
        imported_modules("pipeline.wrong")
