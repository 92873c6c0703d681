"""Raw meshes, soups included, to closed manifold solids: a chain of methods, each accepted only after tests.

keep: a mesh that is a solid already stays as it is (`meshes.keep`).
shell: the surface round the shape at a fraction of a voxel, drawn back towards it (`meshes.shell`).
thick_shell: the same a whole voxel away and not drawn back, which closes wider gaps and never crosses itself.
alpha_wrap: CGAL's alpha wrap, through pymeshlab.

Open shells without thickness (car bodies, tubs) become thin walls in all of them: nothing is filled that can be seen.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from pipeline.settings import Settings

Link = Literal["keep", "shell", "thick_shell", "alpha_wrap"]


class AcceptanceSettings(Settings):
    """Thresholds in longest edges of the shape; grids coarser than 256 voxels are allowed proportionally more."""

    mean_distance: PositiveFloat = 0.006
    """Largest mean distance from the outer raw surface to the closed mesh, and from the closed mesh to the raw one."""
    max_added: PositiveFloat = 0.04
    """Largest distance of a point of the closed mesh from the raw surface: what was added in holes."""
    far_lost: PositiveFloat = 0.03
    """Distance from the closed mesh that at most 1 % of the outer raw surface may exceed: what was lost."""
    edge_change: float = Field(0.02, gt=0, lt=1)
    """Largest relative difference of the longest edges of the two bounding boxes."""
    samples: PositiveInt = 20_000
    """Points drawn on each surface to measure the distances."""
    directions: int = Field(96, ge=8)
    """Directions in which a point of the raw surface is looked at; one free view makes it outer surface."""


class WatertightSettings(Settings):
    """How raw meshes are closed."""

    chain: Annotated[tuple[Link, ...], Field(min_length=1)] = ("keep", "shell", "thick_shell", "alpha_wrap")
    """Methods in the order they are tried; the first accepted result is taken."""
    resolution: int = Field(256, ge=16, le=1024)
    """Voxels along the longest edge of the shape, for shell and thick_shell."""
    padding: int = Field(4, ge=4)
    """Empty voxels around the shape."""
    offset: float = Field(0.6, ge=0.5, le=1)
    """Distance of the shell from the surface, voxels; 0.5 is the least that seals a sheet."""
    shrink: NonNegativeFloat | None = 0.25
    """Distance to which the shell is drawn back, voxels; null leaves it at the offset."""
    thick_offset: float = Field(1.0, ge=0.5, le=2)
    """Distance of the thick shell from the surface, voxels."""
    alpha: PositiveFloat = 0.01
    """Alpha wrap: size of the openings that it does not enter, in diagonals of the bounding box."""
    wrap_offset: PositiveFloat = 0.001
    """Alpha wrap: distance of the wrap from the surface, in diagonals of the bounding box."""
    simplify: PositiveFloat | None = 1e-4
    """How far the surface may move when faces are saved, in longest edges; null keeps every face. Not for keep."""
    weld: PositiveFloat = 1e-7
    """Raw vertices nearer to each other than this are one, in longest edges; the default is float32's own rounding."""
    min_faces: PositiveInt = 4
    """Raw meshes of fewer faces than this are rejected: a solid has at least four."""
    acceptance: AcceptanceSettings = AcceptanceSettings()
    """Tests that a result must pass."""


import numpy as np

from pipeline.arrays import Mesh, Product, Rejected
from pipeline.geometry.clean import (
    flipped,
    merged,
    unwelded,
    without_degenerate_faces,
    without_duplicate_faces,
    without_unused_vertices,
)
from pipeline.geometry.closest import Scene, without_zero_area
from pipeline.geometry.measures import volume
from pipeline.geometry.repair import simplified, welded
from pipeline.meshes.acceptance import Original
from pipeline.meshes.keep import solid
from pipeline.meshes.shell import drawn_back, offset_shell


def make_watertight(raw: Mesh, settings: WatertightSettings) -> Product:
    """A closed, 2-manifold, outward mesh with positive volume that follows the outer surface of `raw`.

    raw: any triangles with finite vertices, in any frame; the result is in the same frame. Work is done in float64 in
    the normalised frame (bounding box centred, longest edge 1), so neither size nor position matters.

    Figures: `link` (the method), `refused` (why those before it failed), `faces`, `components`, and in units of the
    longest edge `volume`, `area`, `thickness` (twice the volume over the area), `d_in_mean` and `d_in_max` (from the
    outer raw surface to the result), `d_out_mean` and `d_out_max` (back). The status is "ok" for keep, else
    "repaired". Raises Rejected where there is no surface, or no method gives an acceptable result.
    """
    centre, extent = _frame(raw)
    whole = welded(merged(Mesh((raw.vertices - centre) / extent, raw.faces)), settings.weld)
    whole = without_duplicate_faces(whole)
    mesh = without_unused_vertices(without_zero_area(without_degenerate_faces(whole)))
    if len(mesh.faces) < settings.min_faces:
        raise Rejected(f"faces with an area of their own: {len(mesh.faces)}; a solid needs {settings.min_faces}")
    scene = Scene(mesh)
    original = Original(mesh, scene, settings.acceptance, settings.resolution)
    refused = {}
    for link in settings.chain:
        try:
            closed = _outward(solid(whole) if link == "keep" else _wrapped(link, mesh, scene, settings))
            figures = original.judge(closed)
        except Rejected as reason:
            refused[link] = str(reason)
            continue
        result = Mesh(closed.vertices * extent + centre, closed.faces)
        status = "ok" if link == "keep" else "repaired"
        return Product(result, {"link": link, "refused": refused, **figures}, status=status)
    reasons = "; ".join(f"{link}: {reason}" for link, reason in refused.items())
    raise Rejected(f"no method closes it ({reasons})")


def _frame(raw: Mesh) -> tuple[np.ndarray, float]:
    """Centre and longest edge of the box of the vertices that faces use."""
    if len(raw.faces) == 0:
        raise Rejected("the mesh has no faces")
    low, high = without_unused_vertices(raw).bounds
    extent = float((high - low).max())
    if not np.isfinite(extent):
        raise Rejected("the mesh has vertices that are not finite, or too far apart for numbers")
    if extent == 0:
        raise Rejected("all vertices are at one point: the shape has no extent")
    return low / 2 + high / 2, extent


def _wrapped(link: Link, mesh: Mesh, scene: Scene, settings: WatertightSettings) -> Mesh:
    """A new surface round the mesh by one method, before any test; raises Rejected where there is none."""
    if link == "alpha_wrap":
        wrap = alpha_wrap(mesh, settings.alpha, settings.wrap_offset)
    elif link == "thick_shell":
        wrap = offset_shell(mesh, scene, settings.resolution, settings.padding, settings.thick_offset)
    else:
        wrap = offset_shell(mesh, scene, settings.resolution, settings.padding, settings.offset)
        if settings.shrink is not None:
            wrap = drawn_back(wrap, scene, settings.resolution, settings.shrink)
    return simplified(wrap, settings.simplify) if settings.simplify else wrap


def alpha_wrap(mesh: Mesh, alpha: float, offset: float) -> Mesh:
    """CGAL's alpha wrap (Portaneri et al. 2022); alpha and offset in diagonals of the bounding box.

    The faces are taken apart first: pymeshlab drops those whose winding conflicts with a neighbour's.
    """
    import pymeshlab

    soup = unwelded(mesh)
    meshes = pymeshlab.MeshSet()
    meshes.add_mesh(pymeshlab.Mesh(soup.vertices, soup.faces))
    meshes.generate_alpha_wrap(
        alpha=pymeshlab.PercentageValue(100 * alpha), offset=pymeshlab.PercentageValue(100 * offset)
    )
    wrap = meshes.current_mesh()
    if wrap.face_number() == 0:
        raise Rejected("the wrap is empty")
    return Mesh(wrap.vertex_matrix(), wrap.face_matrix())


def _outward(mesh: Mesh) -> Mesh:
    return flipped(mesh) if volume(mesh) < 0 else mesh
