"""`isomill statistics`: figures of all shapes, and whether samples and labels agree."""

import csv
from pathlib import Path

import pytest

from pipeline import ledger
from pipeline.cli.main import main
from pipeline.cli.statistics import RATIO, numbers
from pipeline.cli.study import read_plan
from pipeline.ledger import Ledger, Row

CONFIG = "dataset: tiny\nsource: {kind: directory, path: meshes}\nexperiments: [{name: poisson, preset: poisson}]\n"


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("workflow_config.yaml").write_text(CONFIG)
    plan = read_plan([])
    rows = [
        Row("all/a.off", "ok", figures={"occupied_share": 0.2, "sampled_volume": 0.29, "mesh_volume": 0.3}),
        Row("all/b.off", "ok", figures={"occupied_share": 0.1, "sampled_volume": 0.21, "mesh_volume": 0.2}),
        Row("all/c.off", "rejected", reason="it has no faces", stage="extract_meshes"),
    ]
    table = Ledger({"stage": "sample_volume"}, {row.shape: row for row in rows})
    ledger.write(Path(plan.ledger("sample_volume", "all", "0")), table)


def test_every_number_of_every_accepted_shape_is_in_the_table(study, capsys):
    assert main(["statistics"]) == 0
    with open("results/tiny/statistics.csv", newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["shape", "stage", "figure", "value"]
    assert ["all/a.off", "sample_volume", "sampled_volume", "0.29"] in rows
    assert {row[0] for row in rows[1:]} == {"all/a.off", "all/b.off"}
    assert len(rows) == 1 + 2 * 4
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if RATIO in line)
    assert line.split()[-4:] == ["2", "0.96667", "1.0083", "1.05"]


def test_what_a_method_noted_of_its_reconstructions_stands_beside_the_data(study, capsys):
    rows = {"all/a.off": Row("all/a.off", "ok", figures={"faces": 12, "inverse_error": 2e-4, "sign": -1.0})}
    ledger.write(Path("results/tiny/meshes/poisson/0.jsonl"), Ledger({"stage": "generate_meshes"}, rows))
    assert main(["statistics"]) == 0
    with open("results/tiny/statistics.csv", newline="") as stream:
        assert ["all/a.off", "generate_meshes/poisson", "inverse_error", "0.0002"] in list(csv.reader(stream))


def test_nested_figures_are_named_by_their_path_and_words_are_left_out():
    figures = {"method": "shell", "sign_agreement": {"volume": 1.0, "boundary-0.1": 0.5}, "faces": 12}
    assert dict(numbers(figures, "compute_sdf")) == {
        "sign_agreement.volume": 1.0,
        "sign_agreement.boundary-0.1": 0.5,
        "faces": 12.0,
    }


def test_a_study_without_figures_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("workflow_config.yaml").write_text(CONFIG)
    with pytest.raises(SystemExit, match="no stage of results/tiny has finished any shape"):
        main(["statistics"])
