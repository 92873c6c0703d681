"""The data stages of a prepared set in DeepSDF's layout: its samples with their distances, and its surface points.

Frame: DeepSDF's is centred on the shape's box already, and one factor brings the longest edge of the box to 1, as
everywhere here. The edge is that of the SurfaceSamples, brought into DeepSDF's frame by the NormalizationParameters;
where the set has no such files, that of the balls around the samples inside, which their distances keep inside.
"""

from __future__ import annotations

from pydantic import PositiveInt

from pipeline.settings import Settings


class SampleSettings(Settings):
    """Which samples are taken."""

    count: PositiveInt = 500_000
    """Samples per shape: as many as the study's volume and boundary stages ask for together. All shapes of a training
    need the same number, so what a file lacks is filled up with samples that do not count."""


from collections.abc import Mapping

import numpy as np

from pipeline.arrays import Product, Rejected
from pipeline.exchange.deepsdf import BUFFER, read_normalisation, read_samples
from pipeline.meshes.ply import parse_ply
from pipeline.meshes.text import Limits
from pipeline.samples.solid import share
from pipeline.samples.surface import SurfaceSettings
from pipeline.storage import bits_encoding

SURFACE, NORMALISATION = "surface.ply", "normalisation.npz"
REACH = 1 / BUFFER  # of the farthest vertex in DeepSDF's frame
MOST = Limits(vertices=5_000_000, faces=5_000_000)


def compute_sdf(
    content: bytes,
    name: str,
    companions: Mapping[str, bytes],
    settings: SampleSettings,
    rng: np.random.Generator,
) -> Product:
    """`count` of the file's samples in random order: points (n, 3), samples (n,), kept.samples (n,).

    points float32, canonical. samples float32: their signed distances, negative inside. kept.samples bool: those that
    count; the others fill up a file with fewer and are 0. Rows that are not numbers are left out.
    """
    unit = _edge(content, companions)
    found = read_samples(content, 1 / unit)
    chosen = rng.permutation(len(found["sdf"]))[: settings.count]
    points, distances = np.zeros((settings.count, 3), np.float32), np.zeros(settings.count, np.float32)
    points[: len(chosen)], distances[: len(chosen)] = found["points"][chosen], found["sdf"][chosen]
    kept = np.arange(settings.count) < len(chosen)
    figures = {
        "points": len(chosen),
        "inside_share": {"samples": share(distances[kept] < 0)},
        "edge": float(f"{unit:.6g}"),
        "edge_of": "surface samples" if SURFACE in companions else "samples inside",
    }
    encoding = {"points": ("float32",), "samples": ("float32",), "kept.samples": bits_encoding(kept)}
    return Product({"points": points, "samples": distances, "kept.samples": kept}, figures, encoding)


def sample_surface(
    content: bytes,
    name: str,
    companions: Mapping[str, bytes],
    settings: SurfaceSettings,
    rng: np.random.Generator,
) -> Product:
    """`count` of the surface points in random order, or all where there are fewer, canonical.

    The files have no normals: these are NaN, and so is what is measured by them.
    """
    surface = _surface(content, companions[NORMALISATION])
    points = (surface / _longest_edge(surface))[rng.permutation(len(surface))[: settings.count]].astype(np.float32)
    value = {"points": points, "normals": np.full_like(points, np.nan)}
    return Product(value, {"points": len(points)}, {"points": ("float32",), "normals": ("float32",)})


def _edge(content: bytes, companions: Mapping[str, bytes]) -> float:
    """Length of the box's longest edge in DeepSDF's frame."""
    if SURFACE in companions:
        return _longest_edge(_surface(companions[SURFACE], companions[NORMALISATION]))
    samples = read_samples(content)
    inside = samples["sdf"] < 0
    if not inside.any():
        raise Rejected("none of its samples lies inside, and without SurfaceSamples its size is not known")
    reach = (np.abs(samples["points"][inside]).max(axis=1) - samples["sdf"][inside]).max()
    return 2 * float(np.clip(reach, REACH / 3**0.5, REACH))  # what a box can have whose corners lie that far out


def _longest_edge(surface: np.ndarray) -> float:
    """Of points on the surface, in DeepSDF's frame. Rejected where they do not fill it."""
    farthest = float(np.linalg.norm(surface, axis=1).max())
    if not 0.8 * REACH <= farthest <= 1.02 * REACH:
        raise Rejected(
            f"its NormalizationParameters put the farthest of its SurfaceSamples at {farthest:.3g}, not {REACH:.3g}"
        )
    return 2 * float(np.abs(surface).max())


def _surface(content: bytes, normalisation: bytes) -> np.ndarray:
    """The surface points (n, 3) in DeepSDF's frame."""
    offset, scale = read_normalisation(normalisation)
    points = parse_ply(content, MOST).vertices
    if len(points) == 0 or not np.isfinite(points).all():
        raise Rejected("its SurfaceSamples are empty or not finite")
    return (points + offset) * scale
