"""Meshes made to be hard: each ends as a closed, outward 2-manifold near its outer surface, or with a clear reason."""

import numpy as np
import pytest

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry.clean import unwelded
from pipeline.geometry.measures import volume
from pipeline.geometry.quality import is_watertight, nonmanifold_vertices
from pipeline.meshes.scale import ScaleSettings, scale_to_off
from pipeline.meshes.watertight import WatertightSettings, make_watertight
from tests import solids

BALL = solids.icosphere(0.5)
RESOLUTION = 64


def random(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def part_of(mesh: Mesh, share: float, seed: int = 0) -> Mesh:
    return Mesh(mesh.vertices, mesh.faces[random(seed).random(len(mesh.faces)) < share])


def turned(mesh: Mesh, seed: int = 1) -> Mesh:
    axes, _ = np.linalg.qr(random(seed).normal(size=(3, 3)))
    return Mesh(mesh.vertices @ (axes.T * np.linalg.det(axes)), mesh.faces)


def with_mixed_windings(mesh: Mesh) -> Mesh:
    other = random(2).random(len(mesh.faces)) < 0.5
    return Mesh(mesh.vertices, np.where(other[:, None], mesh.faces[:, ::-1], mesh.faces))


def sheet(count: int, place) -> Mesh:
    """The surface place(u, v) over the unit square, count x count vertices."""
    u, v = np.meshgrid(np.linspace(0, 1, count), np.linspace(0, 1, count), indexing="ij")
    at = np.arange(count * count).reshape(count, count)
    a, b, c, d = (part.ravel() for part in (at[:-1, :-1], at[1:, :-1], at[1:, 1:], at[:-1, 1:]))
    faces = np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])
    return Mesh(np.stack(np.broadcast_arrays(*place(u, v)), axis=-1).reshape(-1, 3), faces)


def moebius() -> Mesh:
    def place(u, v):
        turn, beside = 2 * np.pi * u, (v - 0.5) * 0.4
        ring = 1 + beside * np.cos(turn / 2)
        return ring * np.cos(turn), ring * np.sin(turn), beside * np.sin(turn / 2)

    return sheet(80, place)


def klein_bottle() -> Mesh:
    def place(u, v):
        a, b = 2 * np.pi * u, 2 * np.pi * v
        ring = 2.5 + np.cos(a / 2) * np.sin(b) - np.sin(a / 2) * np.sin(2 * b)
        return ring * np.cos(a), ring * np.sin(a), np.sin(a / 2) * np.sin(b) + np.cos(a / 2) * np.sin(2 * b)

    return sheet(60, place)


def with_slivers() -> Mesh:
    """Faces cut in three at a point a millionth of their height beside an edge."""
    vertices, faces = list(BALL.vertices), BALL.faces.tolist()
    for i in range(200):
        a, b, c = faces[i]
        vertices.append((BALL.vertices[a] + BALL.vertices[b]) / 2 + 1e-6 * (BALL.vertices[c] - BALL.vertices[a]))
        new = len(vertices) - 1
        faces[i] = [a, b, new]
        faces += [[b, c, new], [c, a, new]]
    return Mesh(vertices, faces)


def with_fins() -> Mesh:
    chosen = random(3).choice(len(BALL.faces), 40, replace=False)
    tips = BALL.vertices[BALL.faces[chosen, :2]].mean(axis=1) * 1.25
    fins = np.column_stack([BALL.faces[chosen, :2], len(BALL.vertices) + np.arange(40)])
    return Mesh(np.concatenate([BALL.vertices, tips]), np.concatenate([BALL.faces, fins]))


def with_points_and_lines(mesh: Mesh) -> Mesh:
    corner, ends = random(4).integers(0, len(mesh.vertices), 300), random(5).integers(0, len(mesh.vertices), (300, 2))
    far = len(mesh.vertices)
    extra = [np.stack([corner] * 3, axis=1), ends[:, [0, 1, 0]], [[far, far, far]]]
    return Mesh(np.concatenate([mesh.vertices, [[9, 9, 9]]]), np.concatenate([mesh.faces, *extra]))


def many_balls() -> Mesh:
    places = random(6).random((300, 3))
    return solids.join(
        *[solids.icosphere(0.01 + 0.02 * size, place, 1) for size, place in zip(places[:, 0], places, strict=True)]
    )


def letters() -> Mesh:
    """Extruded strokes that overlap in one plane, without their backs."""
    strokes = [(0, 0, 0.1, 1), (0, 0.9, 0.6, 0.1), (0, 0.45, 0.5, 0.1), (0.7, 0, 0.6, 0.1), (0.7, 0, 0.1, 1)]
    word = solids.join(*[solids.box((w, h, 0.15), (x + w / 2, y + h / 2, 0)) for x, y, w, h in strokes])
    a, b, c = word.triangles.transpose(1, 0, 2)
    return Mesh(word.vertices, word.faces[np.cross(b - a, c - a)[:, 2] >= 0])


def loose_faces() -> Mesh:
    rng = random(7)
    return unwelded(Mesh((rng.random((2000, 1, 3)) + rng.normal(0, 0.01, (2000, 3, 3))).reshape(-1, 3), TRIPLES))


TRIPLES = np.arange(6000).reshape(-1, 3)
PLATE, ROD = solids.box((1, 0.7, 0.001)), solids.box((1, 0.001, 0.001))
CASES = {
    "nine faces in ten": lambda: part_of(BALL, 0.9),
    "one face in ten": lambda: part_of(BALL, 0.1),
    "mixed windings and holes": lambda: part_of(with_mixed_windings(turned(BALL)), 0.98),
    "faces twice, both ways": lambda: solids.join(turned(BALL), solids.flipped(turned(BALL))),
    "parts that cross, one of them open": lambda: solids.join(
        part_of(BALL, 0.99), turned(solids.box()), solids.torus()
    ),
    "shells in each other, the outer one open": lambda: solids.join(
        part_of(BALL, 0.999), solids.icosphere(0.3), solids.flipped(solids.icosphere(0.1))
    ),
    "a thin plate": lambda: turned(PLATE),
    "a thin plate without a face": lambda: turned(Mesh(PLATE.vertices, PLATE.faces[1:])),
    "a thin rod": lambda: turned(ROD),
    "a thin rod in loose faces": lambda: unwelded(turned(Mesh(ROD.vertices, ROD.faces[2:]))),
    "tiny": lambda: solids.moved(part_of(BALL, 0.98), scale=1e-6),
    "huge and far away": lambda: solids.moved(part_of(BALL, 0.98), (1e8, -1e8, 1e8), 1e6),
    "slivers": with_slivers,
    "slivers and holes": lambda: part_of(with_slivers(), 0.98),
    "fins": with_fins,
    "a Moebius strip": moebius,
    "a Klein bottle": klein_bottle,
    "a flat sheet": lambda: sheet(3, lambda u, v: (u, v, 0)),
    "two balls a thousand diameters apart": lambda: solids.join(BALL, solids.icosphere(0.5, (1000, 0, 0))),
    "many balls": many_balls,
    "many balls, one open": lambda: Mesh(many_balls().vertices, many_balls().faces[1:]),
    "points and lines among the faces": lambda: with_points_and_lines(BALL),
    "points and lines among the faces, and holes": lambda: with_points_and_lines(part_of(BALL, 0.98)),
    "letters without backs": letters,
    "loose faces": loose_faces,
}


@pytest.mark.parametrize("name", CASES)
def test_a_nasty_mesh_becomes_a_solid_near_it(name):
    raw = CASES[name]()
    product = make_watertight(raw, WatertightSettings(resolution=RESOLUTION))
    canonical = scale_to_off(product.value, raw, ScaleSettings()).value
    for mesh in (product.value, canonical):
        assert is_watertight(mesh)
        assert nonmanifold_vertices(mesh) == 0
        assert volume(mesh) > 0
    figures = product.figures
    exact = figures["link"] in ("keep", "union")
    most = 1e-4 if exact else 0.5 / RESOLUTION
    assert max(figures["d_in_mean"], figures["d_out_mean"]) < most


def test_a_wire_that_the_shell_would_break_is_held_together_by_the_thick_one():
    product = make_watertight(CASES["a thin rod in loose faces"](), WatertightSettings(resolution=RESOLUTION))
    assert product.figures["link"] == "thick_shell"
    assert "parts, the raw mesh has 1" in product.figures["refused"]["shell"]
    assert product.figures["components"] == 1


@pytest.mark.parametrize("name", ["points and lines among the faces", "slivers", "faces twice, both ways"])
def test_what_is_a_solid_but_for_its_writing_keeps_its_volume(name):
    product = make_watertight(CASES[name](), WatertightSettings(resolution=RESOLUTION))
    assert product.figures["link"] == "keep"
    assert volume(product.value) == pytest.approx(volume(BALL), rel=1e-6)


def test_a_single_quad_has_too_few_faces_for_a_solid():
    with pytest.raises(Rejected, match="area of their own: 2; a solid needs 4"):
        make_watertight(sheet(2, lambda u, v: (u, v, 0)), WatertightSettings(resolution=RESOLUTION))


def test_a_cloud_of_faces_that_fills_the_grid_is_refused_with_the_reason():
    rng = random(8)
    corners = (rng.random((4000, 1, 3)) + rng.normal(0, 0.15, (4000, 3, 3))).reshape(-1, 3)
    settings = WatertightSettings(resolution=RESOLUTION, chain=("shell",), max_area=5)
    with pytest.raises(Rejected, match="loose faces rather than a surface"):
        make_watertight(Mesh(corners, np.arange(len(corners)).reshape(-1, 3)), settings)
