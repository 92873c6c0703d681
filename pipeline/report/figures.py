"""Pictures of meshes and static plots, made on the CPU without a display.

Every mesh is seen by the same camera: canonical frame, +y up, the box [-0.5, 0.5]^3 in view, so that pictures of
different methods can be laid on top of each other.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.arrays import Mesh
from pipeline.report.text import printable

CAMERA_DISTANCE = 4.0
"""From the origin, in canonical units: far enough that parallel edges still look parallel."""

FRAME = 0.505
"""Half edge of the box that must lie in the picture: the unit box and a margin."""

VIEW = (207.0, 20.0)
SUPERSAMPLING = 2
SHADOW_OFFSET = 2e-3
LAMP = np.array([-0.48, 0.66, 0.58])
SKY_RAYS = 32
SKY_FULL = 0.38 * SKY_RAYS
REFERENCE_COLOUR = (0.78, 0.76, 0.72)
METHOD_COLOUR = (0.50, 0.68, 0.86)

LINE_COLOURS = ("#3f7fbf", "#d17a22", "#3f9a63", "#b4508f", "#7a6fc4", "#a38a2b", "#2a9ca6", "#c4504a")
INK = "#123456"
"""Stands for the text colour while a plot is drawn; `_svg` puts the reader's own in its place."""

SCHEME = "svg{color:#2b323c}@media(prefers-color-scheme:dark){svg{color:#cdd3dc}}"


def render_mesh(
    mesh: Mesh,
    size: int = 224,
    view: tuple[float, float] = VIEW,
    colour: tuple[float, float, float] = REFERENCE_COLOUR,
) -> bytes:
    """A PNG of `size` x `size` pixels on a transparent ground; equal meshes give equal bytes.

    view: azimuth and elevation of the eye in degrees. Azimuth 0 looks from +z (x to the right), 90 from +x.
    colour: red, green, blue in [0, 1]. A mesh without faces gives an empty picture.
    """
    pixels = size * SUPERSAMPLING
    image = np.zeros((pixels * pixels, 4))
    if len(mesh.faces):
        axes = camera_axes(view)
        hit, shade = _shade(mesh, axes, camera_rays(pixels, axes))
        image[hit, :3] = np.clip(shade[:, None] * np.asarray(colour), 0, 1)
        image[hit, 3] = 1
    return _png(image.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING, 4))


def splats(points: np.ndarray, most: int = 20_000, radius: float = 0.006) -> Mesh:
    """The first points (n, 3) as small octahedra, to show a shape of which only surface samples are known."""
    corners = radius * np.concatenate([np.eye(3), -np.eye(3)])
    sides = np.array([[0, 1, 2], [1, 3, 2], [3, 4, 2], [4, 0, 2], [1, 0, 5], [3, 1, 5], [4, 3, 5], [0, 4, 5]])
    points = np.asarray(points[:most], np.float64)
    starts = 6 * np.arange(len(points))
    return Mesh((points[:, None] + corners).reshape(-1, 3), (starts[:, None, None] + sides).reshape(-1, 3))


def camera_axes(view: tuple[float, float]) -> np.ndarray:
    """Columns right, up and towards the eye, (3, 3), of the camera that looks at the origin."""
    azimuth, elevation = np.radians(view)
    right = np.array([np.cos(azimuth), 0.0, -np.sin(azimuth)])
    around, height = np.cos(elevation), np.sin(elevation)
    backward = np.array([around * np.sin(azimuth), height, around * np.cos(azimuth)])
    return np.stack([right, np.cross(backward, right), backward], axis=1)


def camera_rays(pixels: int, axes: np.ndarray) -> np.ndarray:
    """Unit directions (pixels^2, 3) from the eye through the pixel centres, row by row from the top left."""
    corners = FRAME * np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) @ axes
    seen = corners[:, :2] / (CAMERA_DISTANCE - corners[:, 2:])
    low, high = seen.min(axis=0), seen.max(axis=0)
    steps = (high - low).max() * ((np.arange(pixels) + 0.5) / pixels - 0.5)
    down, across = np.meshgrid(steps, steps, indexing="ij")
    x, y = (low + high) / 2  # of the box as it is seen, so that it fills the picture from any height
    rays = np.stack([x + across, y - down, -np.ones_like(down)], axis=-1).reshape(-1, 3)
    return rays / np.linalg.norm(rays, axis=1, keepdims=True) @ axes.T


def _shade(mesh: Mesh, axes: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rays hit the mesh, (n,) bool, and the brightness of those that do."""
    import open3d as o3d

    scene = o3d.t.geometry.RaycastingScene(nthreads=1)
    scene.add_triangles(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32))
    eye = CAMERA_DISTANCE * axes[:, 2]
    found = scene.cast_rays(_beams(eye, rays), nthreads=1)
    reach = found["t_hit"].numpy().astype(np.float64)
    hit = np.isfinite(reach)

    normals = found["primitive_normals"].numpy()[hit].astype(np.float64)
    # Soups and open surfaces are not oriented: the side that is seen counts as the outer one.
    normals *= np.where(np.sum(normals * rays[hit], axis=1) > 0, -1, 1)[:, None]
    points = eye + reach[hit, None] * rays[hit] + SHADOW_OFFSET * normals

    lamp = np.clip(normals @ (axes @ LAMP), 0, 1)  # travels with the camera, so every view is lit alike
    return hit, 0.26 + 0.50 * _sky(scene, points, normals) + 0.46 * lamp


def _sky(scene: Any, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Brightness in [0, 1] under an even sky, with the shadows that the mesh throws on itself."""
    light = np.zeros(len(points))
    for direction in sky_directions():
        blocked = scene.test_occlusions(_beams(points, direction), nthreads=1).numpy()
        light += np.clip(normals @ direction, 0, 1) * ~blocked
    return light / SKY_FULL


def sky_directions() -> np.ndarray:
    """Unit vectors (n, 3), even over the sphere down to 30 degrees below the horizon; the same for every pixel."""
    index = np.arange(SKY_RAYS) + 0.5
    height = 1 - 1.5 * index / SKY_RAYS
    turn = np.pi * (3 - 5**0.5) * index
    ring = np.sqrt(1 - height**2)
    return np.stack([ring * np.cos(turn), height, ring * np.sin(turn)], axis=1)


def _beams(origins: np.ndarray, directions: np.ndarray) -> Any:
    import open3d as o3d

    origins, directions = np.broadcast_arrays(origins, directions)
    return o3d.core.Tensor(np.concatenate([origins, directions], axis=1).astype(np.float32))


def _png(samples: np.ndarray) -> bytes:
    """Encode (rows, k, columns, k, 4) samples with opacity 0 or 1, averaged over the k x k of each pixel."""
    from PIL import Image

    alpha = samples[..., 3].mean(axis=(1, 3))
    colour = samples[..., :3].sum(axis=(1, 3)) / np.maximum(samples[..., 3].sum(axis=(1, 3)), 1)[..., None]
    pixels = np.round(255 * np.concatenate([colour, alpha[..., None]], axis=-1)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(stream, "PNG", optimize=True)
    return stream.getvalue()


def learning_curve(history: Sequence[Mapping[str, Any]]) -> bytes:
    """SVG of one training: the loss, and below it the held-out IoU where there is one, against the step.

    history: rows with `step` and any of `loss` and keys that contain "iou"; a row may lack what it did not measure.
    """
    scores = sorted({key for row in history for key in row if "iou" in key.lower()})
    with _plot(4.2, 3.4 if scores else 2.1, rows=2 if scores else 1) as (figure, panels):
        steps, losses = series(history, "loss")
        panels[0].plot(steps, losses, color=LINE_COLOURS[1], linewidth=1.2)
        panels[0].set_ylabel("loss")
        if losses and min(losses) > 0:
            _log_scale(panels[0], "y", losses)
        for colour, key in zip(LINE_COLOURS, scores, strict=False):
            panels[1].plot(*series(history, key), color=colour, linewidth=1.2, marker="o", markersize=2.5)
        if scores:
            panels[1].set_ylabel("held-out IoU")
            panels[1].set_ylim(bottom=0)
        panels[-1].set_xlabel("step")
        return _svg(figure)


def series(history: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Steps and finite values of one quantity, in the order of the rows."""
    points = [(row["step"], float(row[key])) for row in history if row.get(key) is not None]
    points = [(step, value) for step, value in points if np.isfinite(value)]
    return [step for step, _ in points], [value for _, value in points]


def score_distribution(scores: Mapping[str, Sequence[float]], label: str, log: bool = False) -> bytes:
    """SVG with one row of ticks per method, one tick per shape, and a diamond at the median. NaN is left out."""
    with _plot(5.2, 0.75 + 0.42 * len(scores)) as (figure, panels):
        axes = panels[0]
        finite = [np.asarray(values, np.float64)[np.isfinite(values)] for values in scores.values()]
        for row, values in enumerate(finite):
            colour = LINE_COLOURS[row % len(LINE_COLOURS)]
            axes.plot(values, np.full(len(values), row), "|", color=colour, markersize=11, alpha=0.55)
            if len(values):
                axes.plot(np.median(values), row, marker="D", color=INK, markersize=4.5)
        # A dollar sign in a name must not begin a formula.
        axes.set_yticks(range(len(scores)), [printable(method).replace("$", r"\$") for method in scores])
        axes.set_ylim(len(scores) - 0.5, -0.5)
        positive = [value for values in finite for value in values if value > 0]
        if log and positive:
            _log_scale(axes, "x", positive)
        axes.set_xlabel(label)
        return _svg(figure)


def _log_scale(axes: Any, direction: str, values: Sequence[float]) -> None:
    """Make "x" or "y" logarithmic, its ticks plain numbers: at 1, 2 and 5, or at powers of ten over a long range."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set(**{f"{direction}scale": "log"})
    axis = getattr(axes, f"{direction}axis")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(values) < 300 * min(values) else (1,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:g}")


@contextlib.contextmanager
def _plot(width: float, height: float, rows: int = 1) -> Iterator[tuple[Any, list[Any]]]:
    """A figure of this size in inches and its panels, drawn without a display and without global state left behind."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style = {
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
        "font.size": 9.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.15,
        "grid.color": INK,
        "svg.fonttype": "none",
        "svg.hashsalt": "isomill",
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])


def _svg(figure: Any) -> bytes:
    """The figure as SVG whose ink follows the reader's light or dark scheme."""
    stream = io.StringIO()
    silent = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(stream, format="svg", transparent=True, metadata=silent)
    drawing = stream.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor")
    head, tag, body = drawing.partition(">")
    return f"{head}{tag}\n<style>{SCHEME}</style>{body}".encode()
