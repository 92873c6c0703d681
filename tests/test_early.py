"""Configuration files are read before Snakemake reads them, which would not say where a mistake is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import ROOT
from pipeline.early import check_configfiles


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("good.yaml").write_text("seed: 1\n")
    Path("tab.yaml").write_text("source:\n\tkind: demo\n")
    return tmp_path


TAB = "line 2, column 1: a tab; YAML is indented by spaces"
REFUSED = {
    "a tab": (["--cores", "2", "eval_all", "--configfile", "good.yaml", "tab.yaml"], f"error: tab.yaml, {TAB}"),
    "the other spelling": (["--configfiles", "tab.yaml"], f"error: tab.yaml, {TAB}"),
    "not there": (["-n", "--configfile", "god.yaml"], "error: there is no file god.yaml in {}; did you mean "
                  "--configfile good.yaml?"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_configuration_file_that_cannot_be_read_is_one_sentence(name, folder):
    argv, expected = REFUSED[name]
    with pytest.raises(SystemExit) as end:
        check_configfiles(argv)
    assert end.value.code == expected.format(folder)


def test_the_configuration_of_the_working_directory_is_read_too(folder):
    (folder / "inner").mkdir()
    (folder / "inner" / "workflow_config.yaml").write_text("prose\n")
    for switch in ("--directory", "-d"):
        with pytest.raises(SystemExit, match=r"inner/workflow_config\.yaml, line 1, column 1: expected keys"):
            check_configfiles([switch, "inner"])


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--cores", "2", "--config", "seed=2", "--configfile", "good.yaml", "--", "eval_all"],
        ["--cores", "2", "-n", "tab.yaml"],
        ["--configfile"],
    ],
)
def test_other_command_lines_pass(argv):
    check_configfiles(argv)


def test_snakemake_says_it_by_the_default_profile(folder):
    """The one way to be asked before Snakemake opens the files."""
    command = [sys.executable, str(Path(sys.executable).with_name("snakemake")), "-s", str(ROOT / "Snakefile"), "-n"]
    done = subprocess.run([*command, "--configfile", "tab.yaml"], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"error: tab.yaml, {TAB}" in done.stderr and "Traceback" not in done.stdout + done.stderr
