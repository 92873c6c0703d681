"""A study small enough to check by hand: two methods, two categories, four test shapes, one failure."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline.evaluation.profiles import PROFILES
from pipeline.evaluation.summary import by_category, by_method, wide_table
from pipeline.report.page import GalleryItem, ReportData, ReportSettings, build_report, read_templates
from tests import solids

RESOURCES = Path(__file__).parents[2] / "resources"
SMALL = ReportSettings(gallery=1, picture_size=64)
SHAPES = (("a", "1"), ("a", "2"), ("a", "3"), ("b", "1"))
IOU = {"net": (0.9, 0.8, None, 0.4), "mean": (0.3, 0.3, 0.3, 0.5)}
CHAMFER = {"net": (0.01, 0.02, None, 0.06), "mean": (0.05, 0.05, 0.05, 0.05)}


def wide(names: dict[str, str] | None = None) -> pd.DataFrame:
    """The wide table; `names` replaces methods, categories and ids by others."""
    names = names or {}
    rows = []
    for method in IOU:
        for (category, shape), iou, chamfer in zip(SHAPES, IOU[method], CHAMFER[method], strict=True):
            row = {"method": method, "category": category, "id": shape}
            row = {key: names.get(value, value) for key, value in row.items()} | {"profile": "onet"}
            if iou is None:
                rows.append({**row, "status": "empty", "reason": names.get("reason", "the mesh has 0 faces")})
            else:
                rows.append({**row, "status": "ok", "iou": iou, "chamfer_l1": chamfer})
    return wide_table(rows)


def rejected(names: dict[str, str] | None = None) -> pd.DataFrame:
    names = names or {}
    rows = [
        ("extract_meshes", "a", "x", "the file has no faces"),
        ("extract_meshes", "a", "y", "3 coordinates are not finite"),
        ("extract_meshes", "b", "z", "14 coordinates are not finite"),
        ("make_watertight", "b", "w", names.get("reason", "the surface is open")),
    ]
    frame = pd.DataFrame(rows, columns=["stage", "category", "id", "reason"])
    return frame.replace({"category": names, "id": names})


def cost() -> pd.DataFrame:
    rows = [("make_watertight", 8, 10.0, 300.0), ("train_model", 0, 115.0, 900.0)]
    return pd.DataFrame(rows, columns=["stage", "shapes", "seconds", "peak_mb"])


def report_data(names: dict[str, str] | None = None, **changes) -> ReportData:
    names = names or {}
    rows = wide(names)
    method = names.get("net", "net")
    gallery = GalleryItem(
        kind="best",
        category=names.get("a", "a"),
        shape=names.get("1", "1"),
        truth=solids.three_boxes(),
        predictions={method: solids.box((0.4, 0.8, 0.2)), "mean": names.get("reason", "the mesh has 0 faces")},
    )
    fields = {
        "study": names.get("study", "tiny"),
        "rows": rows,
        "summary": by_method(rows),
        "categories": by_category(rows),
        "rejected": rejected(names),
        "cost": cost(),
        "profiles": {"onet": PROFILES["onet"]},
        "methods": (method, names.get("mean", "mean")),
        "gallery": (gallery,),
        "curves": {method: [{"step": 10, "loss": 1.0}, {"step": 20, "loss": 0.5, "validation_iou": 0.4}]},
        "configuration": "dataset: tiny\n",
        "environment": {"python": "3.11.2"},
    }
    return ReportData(**{**fields, **changes})


def report(names: dict[str, str] | None = None, **changes) -> dict[str, bytes]:
    return build_report(report_data(names, **changes), read_templates(RESOURCES), SMALL)
