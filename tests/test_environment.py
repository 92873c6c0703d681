"""One set of pinned versions serves all environments, and a bare machine is told what it lacks before anything else."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import stages
from pipeline.config import ROOT
from pipeline.fingerprint import imported_modules
from pipeline.models.registry import available_models
from tests.libraries import imported_libraries

LOCK = ROOT / "envs" / "requirements.lock"
OPTIONAL = {"wandb", "comet-ml"}  # services that a user may ask for, and installs then
CONDA_FILES = sorted((ROOT / "envs").glob("*.yaml"))
SCRIPT = ROOT / "envs" / "system_libraries.sh"
# Import name → distribution, where they differ.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "igl": "libigl",
    "open3d": "open3d-cpu",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
}
# Imported beside the library that brings them and has to agree with them.
BROUGHT_ALONG = {"markupsafe": "jinja2", "snakemake-interface-executor-plugins": "snakemake"}


def normal(name: str) -> str:
    """The form in which package indexes compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> list[tuple[str, str]]:
    lines = [line for line in LOCK.read_text(encoding="utf-8").split("\n") if line and not line.startswith("#")]
    pins = [re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.+!]+)", line) for line in lines]
    assert all(pins), f"not a pin: {lines[pins.index(None)]}"
    return [(normal(pin[1]), pin[2]) for pin in pins]


def conda_pins(path: Path) -> dict[str, str]:
    pins = re.findall(r"^ {6}- ([A-Za-z0-9._-]+)==(\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {normal(name): version for name, version in pins}


def distribution(library: str) -> str:
    return normal(DISTRIBUTIONS.get(library, library))


def third_party(modules: list[str]) -> set[str]:
    """Distributions that some modules and all they import need, wherever in their text."""
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += imported_modules(name)
    libraries = {library for name in seen for library in imported_libraries(name)}
    return {distribution(library) for library in libraries - sys.stdlib_module_names}


# --- pins


def test_the_lock_names_nothing_twice_and_only_exact_versions():
    names = [name for name, _ in locked()]
    assert len(names) > 80
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("path", CONDA_FILES, ids=lambda path: path.stem)
def test_the_pins_of_a_conda_file_are_those_of_the_lock(path):
    pins = conda_pins(path)
    assert len(pins) > 10
    assert pins.items() <= dict(locked()).items()
    lines = path.read_text(encoding="utf-8").split("- pip:")[1].strip().split("\n")
    assert len(lines) == len(pins), "a library without an exact pin"


def test_every_library_the_pipeline_imports_is_pinned():
    modules = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "pipeline").rglob("*.py")]
    names = [".".join(module.parts) for module in modules if module.name != "__init__"]
    needed = third_party(names)
    assert {"numpy", "torch", "pydantic", "snakemake", "pebble"} <= needed
    assert needed - OPTIONAL <= {name for name, _ in locked()}


def rules_by_environment() -> dict[str, list[str]]:
    """Conda file → names of the rules that run in it."""
    found: dict[str, list[str]] = {}
    for path in (ROOT / "rules").glob("*.smk"):
        for block in re.split(r"^ *rule ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            environment = re.search(r"conda:\s+(\w+)_ENV", block)
            if environment:
                found.setdefault(environment[1].lower(), []).append(block.split(":")[0])
            else:
                assert "shell:" not in block, f"{block.split(':')[0]} has no environment"
    return found


def modules_of(rule: str) -> list[str]:
    """The job of a rule and what it loads by name."""
    if rule in stages.STAGES:
        return ["pipeline.cli.main", "pipeline.jobs.run_shard", stages.STAGES[rule].module]
    by_name = {
        "train_model": [f"pipeline.models.{name}" for name in available_models()],
        "generate_meshes": ["pipeline.reconstruction.shapes", *(f"pipeline.models.{m}" for m in available_models())],
        "evaluate_meshes": ["pipeline.evaluation.shape"],
    }
    return ["pipeline.cli.main", f"pipeline.jobs.{rule}", *by_name.get(rule, [])]


@pytest.mark.parametrize("path", CONDA_FILES, ids=lambda path: path.stem)
def test_a_conda_environment_has_what_its_rules_import(path):
    rules = rules_by_environment()[path.stem]
    needed = set().union(*(third_party(modules_of(rule)) for rule in rules))
    needed = {BROUGHT_ALONG.get(name, name) for name in needed - OPTIONAL}
    assert needed <= set(conda_pins(path))


def test_every_environment_belongs_to_rules():
    assert set(rules_by_environment()) == {path.stem for path in CONDA_FILES}


def test_installed_versions_are_the_pinned_ones():
    """Otherwise these tests say nothing about what the two commands install."""
    import importlib.metadata

    installed = {normal(d.name): d.version.split("+")[0] for d in importlib.metadata.distributions()}
    wrong = {name: installed.get(name) for name, version in locked() if installed.get(name) != version.split("+")[0]}
    assert wrong == {}


# --- the two commands


def test_continuous_integration_runs_the_test_command():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").strip().split("\n")
    assert lines[-2:] == ["make test", "make test-processors"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def recipe(tmp_path: Path, target: str) -> str:
    """What make would do on a machine that has nothing yet."""
    for name in ("Makefile", "pyproject.toml", "envs/requirements.lock", "envs/system_libraries.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    command = ["make", "-n", target, "CORES=3"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("target", "end"), [("test", ".venv/bin/python -m pytest"), ("demo", ".venv/bin/snakemake --cores 3 eval_all")]
)
def test_both_commands_set_up_everything_in_order(tmp_path, target, end):
    text = recipe(tmp_path, target)
    steps = ["envs/system_libraries.sh", "-m venv .venv", "-r envs/requirements.lock", "-e .", end]
    places = [text.find(step) for step in steps]
    assert -1 not in places and places == sorted(places)


# --- system libraries

LIBRARIES = ("libEGL.so.1", "libGL.so.1", "libusb-1.0.so.0", "libgomp.so.1", "libOpenGL.so.0")
PACKAGES = "libegl1 libgl1 libusb-1.0-0 libgomp1 libopengl0"


class Machine:
    """A made-up machine: nothing but the shell and these programs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls = folder, folder / "calls"
        self.libraries, self.user, self.old, self.venv, self.apt = list(LIBRARIES), 1000, False, True, 0

    def program(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def run(self, python: bool = True) -> subprocess.CompletedProcess:
        known = "\\n".join(f"\t{name} (libc6,x86-64) => /usr/lib/{name}" for name in self.libraries)
        self.program("ldconfig", f"printf '{known}\\n'")
        self.program("id", f"echo {self.user}")
        self.program("apt-get", f'echo "apt-get $*" >> {self.calls}\nexit {self.apt}')
        if python:
            answers = f"*version_info*) exit {int(self.old)} ;; *ensurepip*) exit {int(not self.venv)} ;;"
            self.program("python3", f'case "$*" in -V) echo Python 3.9.2 ;; {answers} esac')
        return subprocess.run(
            ["/bin/sh", SCRIPT], env={"PATH": str(self.folder)}, capture_output=True, text=True, cwd=self.folder
        )

    @property
    def installed(self) -> str:
        return self.calls.read_text() if self.calls.exists() else ""


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def test_a_machine_that_has_everything_is_left_alone(machine):
    answer = machine.run()
    assert (answer.returncode, answer.stdout, answer.stderr, machine.installed) == (0, "", "", "")


@pytest.mark.parametrize("missing", LIBRARIES)
def test_a_user_is_told_the_exact_command(machine, missing):
    machine.libraries.remove(missing)
    answer = machine.run()
    assert answer.returncode == 1
    assert answer.stderr == (
        "Some system libraries are missing. Type this, then the same command again:\n"
        f"  sudo apt-get install -y --no-install-recommends {PACKAGES}\n"
    )
    assert machine.installed == ""


def test_root_gets_them_installed(machine):
    machine.user, machine.libraries = 0, []
    answer = machine.run()
    assert answer.returncode == 0
    assert machine.installed == f"apt-get update -qq\napt-get install -y -qq --no-install-recommends {PACKAGES}\n"


def test_an_installation_that_fails_stops_the_command(machine):
    machine.user, machine.libraries, machine.apt = 0, [], 100
    assert machine.run().returncode != 0


def test_python_itself_is_among_what_may_be_missing(machine):
    answer = machine.run(python=False)
    assert answer.returncode == 1
    assert answer.stderr.endswith("  sudo apt-get install -y --no-install-recommends python3 python3-venv\n")
    machine.venv, machine.libraries = False, []
    assert machine.run().stderr.endswith(f"--no-install-recommends python3-venv {PACKAGES}\n")


def test_a_python_that_is_too_old_is_named(machine):
    machine.old = True
    answer = machine.run()
    assert answer.returncode == 1
    assert "Isomill needs Python 3.11 or newer; python3 is Python 3.9.2" in answer.stderr
    assert "PYTHON=" in answer.stderr


# --- the repository


def repository_files() -> list[Path]:
    """Files that are or would be committed."""
    command = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        pytest.skip("this is not a git checkout")
    return [ROOT / name for name in answer.stdout.split("\0") if name and (ROOT / name).is_file()]


PLACES = ("work", "farm", "root", "opt", "home")
MACHINE_PATH = re.compile(rf"(?:^|[^A-Za-z0-9_.~-])/(?:{'|'.join(PLACES)})/", re.MULTILINE)


def test_paths_of_a_machine_are_recognised():
    for place in PLACES:
        assert MACHINE_PATH.search(f"path: /{place}/x") and MACHINE_PATH.search(f"/{place}/x")
        assert not MACHINE_PATH.search(f"../{place}/x") and not MACHINE_PATH.search(f"https://a.org/{place}/x")


def test_no_file_names_a_path_of_the_machine_it_was_written_on():
    guilty = []
    for path in repository_files():
        name = path.relative_to(ROOT).as_posix()
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix != ".lock" and MACHINE_PATH.search(text):
            guilty.append(name)
    assert guilty == []


def test_every_module_says_what_it_is():
    modules = [path for path in repository_files() if path.suffix == ".py" and path.name != "__init__.py"]
    modules = [path for path in modules if path.is_relative_to(ROOT / "pipeline")]
    assert len(modules) > 80
    assert [path.name for path in modules if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))] == []
