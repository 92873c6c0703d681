"""The report: one folder with a page, its pictures and nothing that is fetched from elsewhere.

The page works without scripts and without a network. Names of shapes, categories and reasons come from outside: all
text is escaped, file names are digests, and the page's policy allows its own style and its own pictures only.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.settings import Settings


class ReportSettings(Settings):
    """What the report shows."""

    gallery: int = Field(default=2, ge=0, le=50)
    """Test shapes shown of each kind: best, median and worst."""

    generated: int = Field(default=12, ge=0, le=200)
    """Shapes shown of each generator, the first it drew."""

    picture_size: int = Field(default=224, ge=64, le=1024)
    """Edge of a picture in pixels."""

    azimuth: Annotated[float, Field(ge=-360, le=360)] = 207.0
    """Where the camera stands, in degrees about the vertical axis; 0 is at +z, 90 at +x. ShapeNet's front is -z."""

    elevation: Annotated[float, Field(ge=-89, le=89)] = 20.0
    """Height of the camera in degrees over the horizon."""


import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.arrays import Mesh
from pipeline.report import cells, figures, published, tables
from pipeline.report.generated import DEFINITIONS, Generated, generated_table
from pipeline.report.text import printable, redacted

if TYPE_CHECKING:
    import pandas as pd

PAGE = "index.html"
SECTIONS = {
    "comparison": "Comparison",
    "gallery": "Gallery",
    "generated": "Generated shapes",
    "categories": "By category",
    "rejected": "Rejected and failed",
    "curves": "Learning curves",
    "inference": "Inference",
    "cost": "Cost",
    "configuration": "Configuration",
    "environment": "Environment",
}
"""Anchor → heading, in the order of the page; a section without content is left out."""


@dataclass(frozen=True)
class GalleryItem:
    """A test shape: its true mesh (or its samples as one), and by method the predicted one or why there is none.

    kind: best, median or worst, as `tables.select_gallery` says.
    """

    kind: str
    category: str
    shape: str
    truth: Mesh
    predictions: Mapping[str, Mesh | str]


@dataclass(frozen=True)
class ReportData:
    """All that the report shows.

    rows, summary, categories, rejected, cost: frames as `pipeline.report.tables` describes them. profiles: name →
    evaluation profile, one table each. published: numbers of papers (`pipeline.report.published`), None for none.
    methods: in the order of the tables, by default as they stand in the rows. curves: experiment → history rows with
    `step`, `loss` and perhaps a held-out IoU. configuration: YAML text. environment: name → version or value.
    category_names: id → name. fault: why the report compares nothing, shown above all else. generators: their new
    shapes, which stand in no other table. fetched: experiment → the weights it was given in place of a training.
    figures: what methods noted of their reconstructions, None for nothing.
    """

    study: str
    rows: pd.DataFrame
    summary: pd.DataFrame
    categories: pd.DataFrame
    rejected: pd.DataFrame
    cost: pd.DataFrame
    profiles: Mapping[str, cells.Profile]
    published: pd.DataFrame | None = None
    methods: Sequence[str] = ()
    gallery: Sequence[GalleryItem] = ()
    curves: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    configuration: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    category_names: Mapping[str, str] = field(default_factory=dict)
    fault: str = ""
    notes: Sequence[str] = ()
    generators: Sequence[Generated] = ()
    fetched: Mapping[str, str] = field(default_factory=dict)
    figures: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "methods", tuple(self.methods) or tuple(tables.distinct(self.rows["method"])))

    @property
    def shapes(self) -> pd.DataFrame:
        """The rows of one profile: one per method and test shape."""
        return tables.rows_of_one_profile(self.rows, list(self.profiles))


@dataclass(frozen=True)
class Templates:
    page: str
    style: str


def read_templates(resources: Path) -> Templates:
    """The page's template and style from the project's `resources` folder."""
    folder = Path(resources) / "report"
    return Templates(
        page=(folder / "page.html.j2").read_text(encoding="utf-8"),
        style=(folder / "style.css").read_text(encoding="utf-8"),
    )


def build_report(data: ReportData, templates: Templates, settings: ReportSettings) -> dict[str, bytes]:
    """File name → content of the report's folder; equal data give equal bytes. Open `index.html`."""
    pictures: dict[str, bytes] = {}
    context = {
        "study": data.study,
        "facts": _facts(data),
        "comparison": [_comparison(data, name, profile) for name, profile in data.profiles.items()],
        "failures": bool((data.rows["status"] != "ok").any()),
        "reading": _reading(data),
        "distributions": _distributions(data, pictures),
        "means": _mean_tables(data),
        "gallery": [_gallery_item(data, item, settings, pictures) for item in data.gallery],
        "generated": _generated(data, settings, pictures),
        "size": settings.picture_size,
        "categories": _category_tables(data),
        "rejected": _rejected(data),
        "failed": tables.failed_counts(data.shapes, data.methods),
        "remarks": tables.remark_counts(data.shapes, data.methods),
        "curves": _training(data, pictures),
        "inference": tables.figures_table(data.figures) if data.figures is not None and len(data.figures) else None,
        "cost": tables.cost_table(data.cost) if len(data.cost) else None,
        "configuration": data.configuration,
        "environment": tables.words_table(data.environment),
        "fault": data.fault,
        "notes": data.notes,
    }
    return {PAGE: render_page(context, templates).encode(), **pictures}


def render_page(context: Mapping[str, Any], templates: Templates) -> str:
    """The page's HTML. Every value passes `printable` and `redacted` and is escaped, whatever the template does."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else redacted(printable(value)),
    )
    sections = [(name, label) for name, label in SECTIONS.items() if context.get(name, True)]
    return environment.from_string(templates.page).render(
        **context, style=Markup(templates.style), policy=content_policy(templates.style), sections=sections
    )


def content_policy(style: str) -> str:
    """The page's own style and the folder's pictures, and nothing else: no scripts, no network, no frames."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    # Some browsers do not take a file beside the page for 'self'; with file: alone nothing remote is allowed.
    allowed = {"img-src": "'self' file: data:", "style-src": f"'sha256-{digest}'"}
    closed = dict.fromkeys(("default-src", "base-uri", "form-action"), "'none'")
    return "; ".join(f"{kind} {source}" for kind, source in {**closed, **allowed}.items())


def _facts(data: ReportData) -> list[tuple[str, str]]:
    shapes = data.rows[["category", "id"]].drop_duplicates()
    return [
        ("Methods", str(len(data.methods))),
        ("Test shapes", str(len(shapes))),
        ("Categories", str(shapes["category"].nunique())),
        ("Rejected shapes", str(len(data.rejected))),
    ]


def _measured(data: ReportData, name: str, keys: Iterable[str] | None = None) -> list[cells.Metric]:
    """Metrics of one profile of which any shape has a value, as its paper prints them; keys: all in raw units."""
    profile = data.profiles[name]
    scored = set(_of_profile(data.summary, name).query("scored > 0")["metric"])
    scale = profile.print_scale if keys is None else None
    wanted = profile.shown if keys is None else keys
    return cells.metrics_of([key for key in wanted if key in scored], profile.columns, scale)


def _of_profile(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    return frame[frame["profile"] == name]


def _comparison(data: ReportData, name: str, profile: cells.Profile) -> dict[str, Any]:
    metrics, summary = _measured(data, name), _of_profile(data.summary, name)
    beside = None if data.published is None else published.published_table(data.published, name, metrics)
    return {
        "title": f"Profile {name}",
        "note": f"{profile.paper}. The paper prints the {profile.mean} mean. {_sampling(_of_profile(data.rows, name))}",
        "table": tables.comparison_table(summary, data.methods, metrics, "penalised"),
        "dropped": tables.comparison_table(summary, data.methods, metrics, "dropped"),
        "published": beside,
    }


def _mean_tables(data: ReportData) -> list[cells.Table]:
    """Every metric of every profile in raw units; what is the same in several profiles stands once."""
    parts = [
        (name, tables.metric_table(_of_profile(data.summary, name), data.methods, metric))
        for name, profile in data.profiles.items()
        for metric in _measured(data, name, profile.columns)
    ]
    return tables.once(parts)


def _reading(data: ReportData) -> list[str]:
    shapes = data.shapes
    failed = int((shapes["status"] != "ok").sum())
    return [
        "Lengths are in units of the shape's longest edge. A factor in a column's head is applied for printing only, "
        "as the paper does; raw values show under the mouse and in the tables of every metric.",
        "↑ more is better, ↓ less is better; the best value of each column is bold.",
        "Scored: test shapes that could be measured, of those asked for. A failed shape counts with the worst value "
        "(IoU 0, distance √3, consistency and F-score 0) where failures are penalised, and is left out where they are "
        "dropped. " + (f"{failed} of {len(shapes)} reconstructions failed." if failed else "None failed here."),
        "Distances between samples do not compare across different numbers of points, nor numbers of different "
        "profiles with each other; published numbers compare only under the conditions named beside them.",
    ]


def _sampling(rows: pd.DataFrame) -> str:
    """How many points the numbers rest on, where the rows say so."""
    measured = rows[rows["status"] == "ok"]
    words = {
        "predicted_samples": "points on each predicted surface",
        "reference_samples": "on each reference surface",
        "iou_points": "for IoU",
    }
    known = [column for column in words if column in measured and measured[column].fillna(0).any()]
    return ", ".join(f"{_range(measured[column])} {words[column]}" for column in known) + "." if known else ""


def _range(counts: pd.Series) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _category_tables(data: ReportData) -> list[cells.Table]:
    """The metrics of the profiles as they print them; what is the same in several profiles stands once."""
    parts = []
    for name in data.profiles:
        frames = _of_profile(data.categories, name), _of_profile(data.summary, name)
        for metric in _measured(data, name):
            parts.append((name, tables.category_table(*frames, data.methods, metric, data.category_names)))
    return tables.once(parts)


def _rejected(data: ReportData) -> dict[str, Any]:
    return {
        "total": len(data.rejected),
        "counts": tables.rejected_counts(data.rejected),
        "listing": tables.rejected_listing(data.rejected, data.category_names),
        "hidden": max(0, len(data.rejected) - tables.LISTED),
    }


def _distributions(data: ReportData, pictures: dict[str, bytes]) -> list[dict[str, str]]:
    plots = []
    scored = data.shapes.query("status == 'ok'")
    for metric in (cells.IOU, cells.CHAMFER_L1):
        scores = {m: scored.loc[scored["method"] == m, metric.key].to_numpy(np.float64) for m in data.methods}
        if any(np.isfinite(values).any() for values in scores.values()):
            drawing = figures.score_distribution(scores, metric.title, log=not metric.higher_is_better)
            label = f"{metric.title} of every test shape that was scored; the diamond is the median."
            plots.append({"file": _kept(pictures, drawing, "svg"), "label": label})
    return plots


def _training(data: ReportData, pictures: dict[str, bytes]) -> dict[str, Any] | None:
    """The curves of what was trained here, and which weights came from elsewhere; None where there is neither."""
    plots = [
        {"file": _kept(pictures, figures.learning_curve(history), "svg"), "label": name}
        for name, history in data.curves.items()
        if history
    ]
    return {"plots": plots, "fetched": list(data.fetched.items())} if plots or data.fetched else None


def _generated(data: ReportData, settings: ReportSettings, pictures: dict[str, bytes]) -> dict[str, Any] | None:
    if not data.generators:
        return None
    galleries = []
    for generator in data.generators:
        shown = enumerate(generator.samples[: settings.generated])
        tiles = [_tile(f"{k}", sample, figures.METHOD_COLOUR, settings, pictures) for k, sample in shown]
        galleries.append({"method": generator.method, "tiles": tiles})
    return {"table": generated_table(data.generators), "definitions": DEFINITIONS, "galleries": galleries}


def _gallery_item(
    data: ReportData, item: GalleryItem, settings: ReportSettings, pictures: dict[str, bytes]
) -> dict[str, Any]:
    rows = data.shapes[(data.shapes["category"] == item.category) & (data.shapes["id"] == item.shape)]
    scores = dict(zip(rows["method"], rows["iou"], strict=True))
    tiles = [_tile("ground truth", item.truth, figures.REFERENCE_COLOUR, settings, pictures)]
    for method, prediction in item.predictions.items():
        tile = _tile(method, prediction, figures.METHOD_COLOUR, settings, pictures)
        tiles.append({**tile, "score": cells.IOU.print(scores.get(method, np.nan))})
    category = tables.named(item.category, data.category_names)
    return {"kind": item.kind, "category": category, "shape": item.shape, "tiles": tiles}


def _tile(
    label: str,
    content: Mesh | str,
    colour: tuple[float, float, float],
    settings: ReportSettings,
    pictures: dict[str, bytes],
) -> dict[str, str]:
    if isinstance(content, str):
        return {"label": label, "file": "", "reason": content or "no mesh", "score": ""}
    view = (settings.azimuth, settings.elevation)
    picture = figures.render_mesh(content, settings.picture_size, view, colour)
    return {"label": label, "file": _kept(pictures, picture, "png"), "reason": "", "score": ""}


def _kept(pictures: dict[str, bytes], content: bytes, extension: str) -> str:
    """Put a picture into the folder and give its name, which is its digest: no name from outside becomes a path."""
    name = f"{hashlib.blake2b(content, digest_size=10).hexdigest()}.{extension}"
    pictures[name] = content
    return name
