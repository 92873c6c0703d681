"""The embedded demo gives numbers that make sense."""

from __future__ import annotations

import pandas
import yaml

from tests.workflow.runner import ROOT, Workflow


def test_poisson_beats_the_network_and_the_network_the_mean_shape(tmp_path):
    """The real demo, without DeepSDF and the stages that it alone needs."""
    demo = yaml.safe_load((ROOT / "workflow_config.yaml").read_text())["demo"]
    demo["experiments"] = [block for block in demo["experiments"] if block["name"] in ("onet-pointcloud", "poisson")]
    study = Workflow.new(tmp_path / "study")
    (study.folder / "study.yaml").write_text(yaml.safe_dump({"dataset": "demo", "demo": demo}))
    study.run()
    summary = pandas.read_csv(study.results / "evaluation" / "summary.csv").set_index(["method", "profile", "metric"])
    iou = summary["micro_penalised"].xs(("onet", "iou"), level=("profile", "metric"))
    assert iou["poisson"] > iou["onet-pointcloud"] > iou["mean-shape"] + 0.05 > 0.15
    assert (summary["asked"] == summary["scored"]).all() and summary["asked"].iloc[0] >= 12
    catalogue = pandas.read_csv(next(study.results.glob("shapes/*/catalogue.csv")), dtype=str)
    assert len(catalogue) >= 60 and catalogue["category"].nunique() >= 3
    assert set(catalogue["split"]) == {"train", "val", "test"}
