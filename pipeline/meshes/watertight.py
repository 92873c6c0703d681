"""Raw meshes, soups included, to closed manifold solids: a chain of methods, each accepted only after tests.

keep: a mesh that is a solid already stays as it is (`meshes.keep`).
union: closed parts that cross are united exactly (`meshes.keep`).
shell: the surface round the shape at a fraction of a voxel, drawn back towards it (`meshes.shell`), with slits opened
where the outer surface goes on behind them (`meshes.slits`).
thick_shell: the same from a whole voxel away, which closes wider gaps and holds together wires thinner than a voxel.
alpha_wrap: CGAL's alpha wrap, through pymeshlab.
fusion: depth images from all sides, fused; it thickens and fills what cannot be seen (`meshes.fusion`).

Open shells without thickness (car bodies, tubs) become thin walls: nothing is filled that can be seen. With `interior:
solid` what they enclose is filled (`meshes.interior`), by keep, union, shell and thick_shell.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from pipeline.settings import Settings

Link = Literal["keep", "union", "shell", "thick_shell", "alpha_wrap", "fusion"]


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
    growth: float | None = Field(4.0, gt=1)
    """Largest ratio of its volume to that which the raw surface encloses, for bodies that loose pieces far away have
    made smaller than 16 voxels; null for any. Wires, plates and sheets are given the thickness the grid can hold."""
    more_parts: bool = False
    """Whether it may have more parts than the raw mesh."""
    samples: PositiveInt = 20_000
    """Points drawn on each surface to measure the distances."""
    directions: int = Field(96, ge=8)
    """Directions in which a point of the raw surface is looked at; one free view makes it outer surface."""


class FusionSettings(Settings):
    """Depth images and their grid, for fusion; the defaults are those of Occupancy Networks."""

    views: PositiveInt = 100
    """Depth images, from directions on a Fibonacci sphere; with far fewer, more of the space beside the shape stays
    unseen, and so solid."""
    image: int = Field(640, ge=16, le=4096)
    """Pixels along each edge of an image."""
    focal: PositiveFloat = 640.0
    """Focal length of the camera, pixels; it stands one edge of the grid from the centre."""
    resolution: int = Field(256, ge=16, le=512)
    """Voxels along each edge of the grid."""
    padding: float = Field(0.1, ge=0, lt=1)
    """Share of the grid's edge that the shape's longest edge leaves free."""
    thickening: NonNegativeFloat = 1.5
    """How far depths are moved towards the camera, voxels."""
    erosion: int = Field(3, ge=1, le=15)
    """Edge of the window of pixels whose least depth counts, which fattens thin parts; 1 for none."""
    truncation: PositiveFloat = 10.0
    """Distance from a surface beyond which an image says only that a voxel is free, or nothing, voxels."""


class WatertightSettings(Settings):
    """How raw meshes are closed."""

    chain: Annotated[tuple[Link, ...], Field(min_length=1)] = ("keep", "union", "shell", "thick_shell", "alpha_wrap")
    """Methods in the order they are tried; the first accepted result is taken."""
    interior: Literal["hollow", "solid"] = "hollow"
    """Whether open shells become thin walls (hollow), or what they enclose is filled too (solid)."""
    self_intersections: Literal["allow", "forbid"] = "allow"
    """forbid: no two faces of the result meet but in shared corners, by an exact test, neither in the raw file's
    coordinates nor after scaling to float32. Corners of crossing faces are nudged apart; where that does not help,
    what has to be is undone: simplifying, then drawing back."""
    resolution: int = Field(256, ge=16, le=1024)
    """Voxels along the longest edge of the shape, for shell and thick_shell."""
    padding: int = Field(4, ge=4)
    """Empty voxels around the shape."""
    offset: float = Field(0.55, ge=0.5, le=1)
    """Distance of the shell from the surface, voxels; 0.5 is the least that seals a sheet. Gaps narrower than twice
    this are closed, and some of up to one voxel more, as the grid falls; see `slits`."""
    shrink: NonNegativeFloat | None = 0.25
    """Distance to which shell and thick_shell are drawn back, voxels; null leaves them at their offsets."""
    slits: tuple[Literal[2, 4, 8], ...] = (4, 8)
    """Grids, so many times as fine, on which slits are opened where outer surface was lost behind them, one after the
    other; empty leaves them closed. For shell and thick_shell, and hollow interiors."""
    thick_offset: float = Field(1.0, ge=0.5, le=2)
    """Distance of the thick shell from the surface, voxels, before it is drawn back as the shell is."""
    max_area: PositiveFloat = 30.0
    """Largest area of shell and thick_shell, squared longest edges (a cube has 6): a cloud of loose faces has more."""
    alpha: PositiveFloat = 0.01
    """Alpha wrap: size of the openings that it does not enter, in diagonals of the bounding box."""
    wrap_offset: PositiveFloat = 0.001
    """Alpha wrap: distance of the wrap from the surface, in diagonals of the bounding box."""
    fusion: FusionSettings = FusionSettings()
    """Depth images and their grid."""
    simplify: PositiveFloat | None = 1e-4
    """How far the surface may move when faces are saved, in longest edges (where it moves most, up to about twice
    that); null keeps every face. Not for keep and union."""
    weld: PositiveFloat = 1e-7
    """Raw vertices nearer to each other than this are one, in longest edges; the default is float32's own rounding."""
    min_faces: PositiveInt = 4
    """Raw meshes of fewer faces than this are rejected: a solid has at least four."""
    acceptance: AcceptanceSettings = AcceptanceSettings()
    """Tests that a result must pass."""


import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.arrays import Mesh, Product, Rejected
from pipeline.geometry.clean import (
    flipped,
    merged,
    unwelded,
    without_degenerate_faces,
    without_duplicate_faces,
    without_stray_faces,
    without_unused_vertices,
)
from pipeline.geometry.closest import Scene, without_zero_area
from pipeline.geometry.measures import volume
from pipeline.geometry.quality import self_intersections
from pipeline.geometry.repair import nudged, welded
from pipeline.geometry.simplify import simplified
from pipeline.meshes.acceptance import Original
from pipeline.meshes.enclosed import BULK, bulk_edge
from pipeline.meshes.fusion import fused
from pipeline.meshes.interior import Enclosure
from pipeline.meshes.keep import Closed, closed, kept, united
from pipeline.meshes.shell import Shell, drawn_back, offset_shell, untangled
from pipeline.meshes.slits import lost_points, opened, sights

NUDGE = 1e-4  # longest edges; how far a corner of crossing faces may go at once
FINER = 8  # by how much less the surface may move in a second try to save faces without a crossing


def make_watertight(raw: Mesh, settings: WatertightSettings) -> Product:
    """A closed, 2-manifold, outward mesh with positive volume that follows the outer surface of `raw`.

    raw: any triangles with finite vertices, in any frame; the result is in the same frame. Work is done in float64 in
    the normalised frame (bounding box centred, longest edge 1), so neither size nor position matters.

    Figures: `link` (the method), `refused` (why those before it failed), `slits` (how many times as
    fine the finest grid was on which slits were opened, 0 where none were), `faces`, `components`, `self_intersections`
    (pairs of faces that cross, exactly counted), and in units of the longest edge `volume`, `area`, `thickness` (twice
    the volume over the area), `thickness_added` (what a sheet gains), `d_in_mean` and `d_in_max` (from the outer raw
    surface to the result), `d_out_mean` and `d_out_max` (back, lids of the solid reading left out). The status is "ok"
    for keep, else "repaired". Raises Rejected where there is no surface, or no method gives an acceptable result, and
    MemoryError where the grid does not fit into the memory there is.
    """
    centre, extent = _frame(raw)
    shape = _Shape.of(Mesh((raw.vertices - centre) / extent, raw.faces), settings)
    original = Original(shape.mesh, shape.scene, settings.acceptance, settings.resolution, shape.enclosure)
    refused = {}
    for link in settings.chain:
        try:
            result, figures = _closed_by(link, shape, original, settings, centre, extent)
        except Rejected as reason:
            refused[link] = str(reason)
            continue
        status = "ok" if link == "keep" else "repaired"
        return Product(result, {"link": link, "refused": refused, **figures}, status=status)
    reasons = "; ".join(f"{link}: {reason}" for link, reason in refused.items())
    raise Rejected(f"no method closes it ({reasons})")


def _frame(raw: Mesh) -> tuple[np.ndarray, float]:
    """Centre and longest edge of the box of the faces, those without an area left out where they would widen it."""
    if len(raw.faces) == 0:
        raise Rejected("the mesh has no faces")
    used = without_unused_vertices(raw)
    if not np.isfinite(np.ptp(used.vertices, axis=0)).all():
        raise Rejected("the mesh has vertices that are not finite, or too far apart for numbers")
    low, high = without_unused_vertices(without_stray_faces(used)).bounds
    extent = float((high - low).max())
    if extent == 0:
        raise Rejected("all vertices are at one point: the shape has no extent")
    return low / 2 + high / 2, extent


@dataclass(frozen=True)
class _Shape:
    """A raw mesh in the normalised frame, as the links take it.

    whole: welded, every face once. mesh: its faces that have an area. enclosure: for the solid reading.
    """

    whole: Mesh
    mesh: Mesh
    scene: Scene
    enclosure: Enclosure | None

    @classmethod
    def of(cls, raw: Mesh, settings: WatertightSettings) -> _Shape:
        whole = without_duplicate_faces(welded(merged(raw), settings.weld))
        mesh = without_unused_vertices(without_zero_area(without_degenerate_faces(whole)))
        if len(mesh.faces) < settings.min_faces:
            raise Rejected(f"faces with an area of their own: {len(mesh.faces)}; a solid needs {settings.min_faces}")
        scene = Scene(mesh)
        return cls(whole, mesh, scene, Enclosure(mesh, scene) if settings.interior == "solid" else None)

    @functools.cached_property
    def bulk(self) -> float:
        """Longest edge of the box of nearly all of the surface."""
        return bulk_edge(self.mesh)

    @functools.cached_property
    def _closed(self) -> Closed | Rejected:
        try:
            return closed(self.whole)
        except Rejected as reason:
            return reason

    @property
    def closed(self) -> Closed:
        """Its closed parts; raises Rejected, each time it is asked, where it has none."""
        if isinstance(self._closed, Rejected):
            raise Rejected(str(self._closed))
        return self._closed


def _closed_by(
    link: Link, shape: _Shape, original: Original, settings: WatertightSettings, centre: np.ndarray, extent: float
) -> tuple[Mesh, dict]:
    """The result of one link in the raw frame, and its figures; raises Rejected where it is not acceptable."""

    def in_raw_frame(mesh: Mesh) -> Mesh:
        return Mesh(mesh.vertices * extent + centre, mesh.faces)

    def crossings(mesh: Mesh) -> int:
        return _crossings(in_raw_frame(mesh)) if settings.self_intersections == "forbid" else 0

    for candidate, shell in _candidates(link, shape, settings):
        candidate = flipped(candidate) if volume(candidate) < 0 else candidate
        crossing = crossings(candidate)
        if crossing == 0:
            mesh, figures = _judged(candidate, shell, shape, original, settings, crossings)
            return in_raw_frame(mesh), {**figures, "self_intersections": self_intersections(mesh)}
    raise Rejected(f"pairs of its faces cross: {crossing}")


def _judged(
    closed: Mesh,
    shell: Shell | None,
    shape: _Shape,
    original: Original,
    settings: WatertightSettings,
    crossings: Callable[[Mesh], int],
) -> tuple[Mesh, dict]:
    """A candidate, with slits opened in it where that is needed, possible and acceptable, and its figures."""
    lost = original.lost(closed)
    mesh, still_lost, finest = closed, lost, 0
    for finer in settings.slits if shell else ():
        points, normals = lost_points(original, mesh, still_lost, settings.resolution)
        if len(points) == 0:
            break
        lines = sights(shell, shape.scene, points, normals, settings.acceptance.directions)
        try:
            wider = opened(mesh, shell, shape.mesh, lines, finer, settings.offset, settings.simplify)
        except Rejected:
            continue
        wider = nudged(wider, NUDGE) if crossings(wider) else wider
        if crossings(wider) == 0:
            mesh, still_lost, finest = wider, original.lost(wider), finer
    try:
        return mesh, {"slits": finest, **original.judge(mesh, still_lost)}
    except Rejected:
        if not finest:
            raise
        return closed, {"slits": 0, **original.judge(closed, lost)}


def _crossings(result: Mesh) -> int:
    """The pairs of crossing faces of the result, or where there are none of what scaling it to float32 makes."""
    low, high = result.bounds
    scaled = (result.vertices - (low + (high - low) / 2)) / (high - low).max()
    return self_intersections(result) or self_intersections(Mesh(scaled.astype(np.float32), result.faces))


def _candidates(link: Link, shape: _Shape, settings: WatertightSettings) -> Iterator[tuple[Mesh, Shell | None]]:
    """New surfaces by one method, before any test: the wanted one, then others that are likelier to be embedded.

    With each the shell it was made from, where slits in it may be opened. Raises Rejected where there is none.
    """
    if link == "keep":
        yield kept(shape.closed, settings.interior == "hollow"), None
    elif link == "union":
        yield united(shape.closed), None
    else:
        for surface, tolerances, shell in _wraps(link, shape, settings):
            for tolerance in tolerances if settings.simplify else [None]:
                candidate = simplified(surface, tolerance) if tolerance else surface
                yield candidate, shell
                if settings.self_intersections == "forbid":
                    yield nudged(candidate, NUDGE), shell


def _wraps(
    link: Link, shape: _Shape, settings: WatertightSettings
) -> Iterator[tuple[Mesh, list[float | None], Shell | None]]:
    """Surfaces round the mesh, in the order they are to be tried, how far each may move when faces are saved, and the
    shell it was made from."""
    saving = [settings.simplify, settings.simplify and settings.simplify / FINER, None]
    if link in ("alpha_wrap", "fusion") and shape.enclosure is not None:
        raise Rejected("it leaves open shells hollow")
    if shape.bulk < 1 / settings.resolution:
        raise Rejected(
            f"{BULK:.0%} of its surface lies within {shape.bulk:.2g} of its longest edge, less than a voxel of the "
            f"grid (1/{settings.resolution}): remove the loose pieces far from it, or raise the resolution"
        )
    if link == "alpha_wrap":
        yield alpha_wrap(shape.mesh, settings.alpha, settings.wrap_offset), saving, None
    elif link == "fusion":
        yield fused(shape.mesh, settings.fusion), saving, None
    else:
        offset = settings.offset if link == "shell" else settings.thick_offset
        shell = offset_shell(
            shape.mesh, settings.resolution, settings.padding, offset, shape.enclosure, settings.max_area
        )
        hollow = None if shape.enclosure else shell
        if settings.shrink is not None:
            drawn = drawn_back(shell.surface, shape.scene, settings.resolution, offset, settings.shrink)
            yield drawn, saving[:1], hollow
            yield untangled(drawn, shell.surface), saving, hollow
        yield shell.surface, saving, hollow


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
