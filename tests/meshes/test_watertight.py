from pathlib import Path

import numpy as np
import pytest

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry.clean import merged, unwelded
from pipeline.geometry.closest import distance, signed_distance
from pipeline.geometry.inside import occupancy
from pipeline.geometry.measures import volume
from pipeline.geometry.quality import (
    component_count,
    is_watertight,
    nonmanifold_vertices,
    self_intersections,
)
from pipeline.meshes.scale import ScaleSettings, scale_to_off
from pipeline.meshes.watertight import AcceptanceSettings, WatertightSettings, make_watertight
from tests import solids

BOX = solids.box((1.0, 0.7, 0.5))
POINTS = np.random.default_rng(5).uniform(-0.5, 0.5, (8000, 3))
INNER = solids.box((0.3, 0.2, 0.1), (0.1, 0.05, 0.02))
CAVITY = solids.flipped(INNER)
ISLAND = solids.box((0.1, 0.1, 0.05), (0.1, 0.05, 0.02))
WRAPPING = ("shell", "thick_shell", "alpha_wrap")


def settings(*chain, **changes) -> WatertightSettings:
    return WatertightSettings(**{"chain": chain or ("keep", "shell"), "resolution": 64} | changes)


def assert_solid(mesh: Mesh) -> None:
    assert is_watertight(mesh)
    assert nonmanifold_vertices(mesh) == 0
    assert volume(mesh) > 0


def with_turned_faces(mesh: Mesh, seed: int = 0) -> Mesh:
    turned = np.random.default_rng(seed).random(len(mesh.faces)) < 0.5
    return Mesh(mesh.vertices, np.where(turned[:, None], mesh.faces[:, ::-1], mesh.faces))


def without_face(mesh: Mesh, at: int) -> Mesh:
    return Mesh(mesh.vertices, np.delete(mesh.faces, at, axis=0))


@pytest.mark.parametrize("mesh", [BOX, solids.torus(), solids.three_boxes()], ids=["box", "torus", "three_boxes"])
def test_a_solid_is_kept_as_it_is(mesh):
    product = make_watertight(mesh, settings())
    assert (product.figures["link"], product.status) == ("keep", "ok")
    assert len(product.value.faces) == len(mesh.faces)
    np.testing.assert_allclose(product.value.triangles.sum(axis=1), mesh.triangles.sum(axis=1), atol=1e-12)


@pytest.mark.parametrize(
    "spoil",
    [
        solids.flipped,
        unwelded,
        with_turned_faces,
        lambda m: solids.join(m, m),
        lambda m: solids.join(m, solids.flipped(m)),
        lambda m: Mesh(m.vertices, np.concatenate([m.faces, m.faces[:, [0, 0, 1]]])),
        lambda m: Mesh(np.concatenate([m.vertices, [[50.0, 0, 0]]]), m.faces),
    ],
    ids=["inside out", "soup", "mixed windings", "doubled", "two-sided", "degenerate", "unused vertex"],
)
def test_a_solid_written_badly_is_cleaned_and_kept(spoil):
    product = make_watertight(spoil(solids.torus()), settings("keep"))
    assert_solid(product.value)
    assert volume(product.value) == pytest.approx(volume(solids.torus()))


def test_vertices_that_differ_by_rounding_are_one():
    soup = unwelded(solids.torus())
    shaken = soup.vertices + np.random.default_rng(0).uniform(-1e-8, 1e-8, soup.vertices.shape)
    assert make_watertight(Mesh(shaken, soup.faces), settings("keep")).figures["components"] == 1


def test_a_face_without_area_that_closes_a_gap_does_not_open_the_solid():
    a, b, c = BOX.faces[0]
    middle = len(BOX.vertices)
    vertices = np.concatenate([BOX.vertices, [BOX.vertices[[a, b]].mean(axis=0)]])
    mesh = Mesh(vertices, np.concatenate([BOX.faces[1:], [[a, middle, c], [middle, b, c], [a, b, middle]]]))
    kept = make_watertight(mesh, settings("keep")).value
    assert_solid(kept)
    assert volume(kept) == pytest.approx(0.35)


def test_a_part_inside_another_goes_and_a_cavity_stays():
    inner = solids.box((0.3, 0.2, 0.1), (0.1, 0.05, 0.02))
    island = solids.box((0.1, 0.1, 0.05), (0.1, 0.05, 0.02))
    filled = make_watertight(solids.join(BOX, inner), settings("keep"))
    hollow = make_watertight(solids.join(BOX, solids.flipped(inner)), settings("keep"))
    with_island = make_watertight(solids.join(BOX, solids.flipped(inner), island), settings("keep"))
    assert (filled.figures["volume"], filled.figures["components"]) == (pytest.approx(0.35), 1)
    assert (hollow.figures["volume"], hollow.figures["components"]) == (pytest.approx(0.35 - 0.006), 2)
    assert with_island.figures["volume"] == pytest.approx(0.35 - 0.006 + 0.0005)
    assert not occupancy(hollow.value, np.array([[0.1, 0.05, 0.02]]))[0]


def test_an_inverted_part_beside_another_is_turned():
    far = solids.box((0.3, 0.3, 0.3), (2, 0, 0))
    product = make_watertight(solids.join(BOX, solids.flipped(far)), settings("keep"))
    assert volume(product.value) == pytest.approx(0.35 + 0.027)


NESTS = [(BOX, CAVITY), (BOX, CAVITY, ISLAND), (BOX, INNER), (BOX, solids.moved(INNER, (2, 0, 0)), CAVITY)]


@pytest.mark.parametrize("parts", NESTS, ids=["hollow", "island in a cavity", "same", "two bodies"])
@pytest.mark.parametrize("interior", ["hollow", "solid"])
def test_a_body_that_is_inside_out_as_a_whole_or_mirrored_is_as_it_was(parts, interior):
    mesh = solids.join(*parts)
    mirrored = Mesh(mesh.vertices * (1, 1, -1), mesh.faces)
    expected = make_watertight(mesh, settings("keep", interior=interior))
    for spoilt in (solids.flipped(mesh), mirrored):
        product = make_watertight(spoilt, settings("keep", interior=interior))
        assert product.figures["volume"] == pytest.approx(expected.figures["volume"])
        assert product.figures["components"] == expected.figures["components"]


def test_bodies_are_judged_each_by_its_own_outermost_part():
    """An inverted hollow body beside a proper one."""
    beside = solids.moved(solids.join(BOX, CAVITY), (2, 0, 0))
    product = make_watertight(solids.join(solids.flipped(solids.join(BOX, CAVITY)), beside), settings("keep"))
    assert volume(product.value) == pytest.approx(2 * (0.35 - 0.006))


def test_union_takes_an_inverted_body_as_it_takes_a_proper_one_and_no_cavity():
    other = solids.box((0.4, 0.5, 0.9), (0.4, 0.3, 0.1))
    expected = volume(make_watertight(solids.join(BOX, INNER, other), settings("union")).value)
    turned = solids.flipped(solids.join(BOX, INNER, other))
    assert volume(make_watertight(turned, settings("union")).value) == pytest.approx(expected)
    for mesh in (solids.join(BOX, CAVITY, other), solids.flipped(solids.join(BOX, CAVITY, other))):
        with pytest.raises(Rejected, match="one of them may be a cavity"):
            make_watertight(mesh, settings("union"))


def test_parts_that_cross_are_united_exactly_by_the_link_of_that_name():
    other = solids.box((0.4, 0.5, 0.9), (0.4, 0.3, 0.1))
    product = make_watertight(solids.join(BOX, other), settings("keep", "union"))
    united, shared = product.value, (0.5 - 0.2) * (0.35 - 0.05) * 0.5
    assert (product.figures["link"], product.status) == ("union", "repaired")
    assert product.figures["refused"] == {"keep": "its faces cross"}
    assert_solid(united)
    assert product.figures["self_intersections"] == self_intersections(united) == 0
    assert volume(united) == pytest.approx(0.35 + 0.18 - shared)
    points = POINTS * 1.6
    expected = solids.box_inside(points, (1.0, 0.7, 0.5)) | solids.box_inside(points, (0.4, 0.5, 0.9), (0.4, 0.3, 0.1))
    np.testing.assert_array_equal(occupancy(united, points), expected)


def test_union_takes_nothing_but_closed_parts_that_cross():
    for mesh, reason in (
        (BOX, "no parts cross"),
        (without_face(BOX, 3), "open edges: 3"),
    ):
        with pytest.raises(Rejected, match=reason):
            make_watertight(mesh, settings("union"))


def test_cubes_that_touch_in_a_corner_are_kept_with_that_corner_twice():
    product = make_watertight(merged(solids.join(solids.box(), solids.box(centre=(1, 1, 1)))), settings("keep"))
    assert_solid(product.value)
    assert len(product.value.vertices) == 16
    assert volume(product.value) == pytest.approx(2)


@pytest.mark.parametrize("link", WRAPPING)
def test_three_boxes_are_wrapped_in_place_point_by_point(link):
    product = make_watertight(solids.three_boxes(), settings(link, resolution=128))
    assert product.status == "repaired"
    assert_solid(product.value)
    assert component_count(product.value) == 3
    sdf = solids.three_boxes_sdf(POINTS)
    clear = np.abs(sdf) > 1.1 / 128
    np.testing.assert_array_equal(occupancy(product.value, POINTS)[clear], sdf[clear] < 0)


def test_shells_lie_a_quarter_of_a_voxel_outside_and_where_they_are_not_drawn_back_at_their_offsets():
    raw, voxel = solids.icosphere(0.5, subdivisions=4), 1 / 64
    for link in ("shell", "thick_shell"):
        drawn = make_watertight(raw, settings(link, simplify=None)).value
        np.testing.assert_allclose(distance(raw, drawn.vertices), 0.25 * voxel, rtol=1e-3)
        assert (signed_distance(raw, drawn.vertices) > 0).all()
    thick = make_watertight(raw, settings("thick_shell", simplify=None, shrink=None)).value
    np.testing.assert_allclose(distance(raw, thick.vertices), voxel, rtol=0.1)


def test_the_shell_of_a_sphere_is_centred():
    raw = solids.icosphere(0.5, (3, -2, 1), 4)
    shell = make_watertight(raw, settings("shell")).value
    np.testing.assert_allclose(shell.bounds.mean(axis=0), (3, -2, 1), atol=1e-4)


@pytest.mark.parametrize("link", WRAPPING)
def test_flipped_faces_and_hidden_walls_do_not_matter(link):
    clean = make_watertight(BOX, settings(link)).figures["volume"]
    walled = solids.join(BOX, solids.box((0.4, 0.3, 0.2), (0.1, 0.1, 0.1)), Mesh(BOX.vertices * 0.9, BOX.faces[:2]))
    assert make_watertight(with_turned_faces(walled), settings(link)).figures["volume"] == pytest.approx(
        clean, rel=0.01
    )
    assert clean == pytest.approx(0.35, rel=0.15)


@pytest.mark.parametrize("link", WRAPPING)
def test_an_open_box_becomes_walls_and_a_sheet_a_plate(link):
    open_box = make_watertight(Mesh(BOX.vertices, BOX.faces[np.r_[1:6, 7:12]]), settings(link))
    assert_solid(open_box.value)
    assert open_box.figures["volume"] < 0.1
    x, y = np.meshgrid(np.linspace(0, 1, 5), np.linspace(0, 1, 5))
    corner = np.arange(20)[np.arange(20) % 5 < 4]
    faces = np.concatenate(
        [np.stack([corner, corner + 1, corner + 6], 1), np.stack([corner, corner + 6, corner + 5], 1)]
    )
    sheet = Mesh(np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], axis=1), faces)
    plate = make_watertight(sheet, settings(link))
    assert_solid(plate.value)
    assert plate.figures["thickness"] < 2.1 / 64


def test_gaps_narrower_than_twice_the_offset_are_closed_and_wider_ones_are_not():
    def slit(width):
        halves = [solids.box((0.5, 0.7, 0.5), (side * (0.25 + width / 2), 0, 0)) for side in (-1, 1)]
        return solids.join(*halves, solids.box((0.2, 0.05, 0.05)))

    assert make_watertight(slit(0.5 / 64), settings("shell")).figures["components"] == 1
    wide = make_watertight(slit(4 / 64), settings("shell")).value
    assert not occupancy(wide, np.array([[0, 0.3, 0.2]]))[0]


@pytest.mark.parametrize("link", ["keep", *WRAPPING])
@pytest.mark.parametrize(("shift", "size"), [(0, 1e30), (0, 1e-30), (1e7, 0.01), (0, 1e39)])
def test_size_and_place_do_not_matter(link, shift, size):
    raw = solids.moved(solids.icosphere(0.5, subdivisions=2), (shift, -shift, shift), size)
    result = make_watertight(raw, settings(link)).value
    back = solids.moved(Mesh(result.vertices - (shift, -shift, shift), result.faces), scale=1 / size)
    assert_solid(back)
    assert volume(back) == pytest.approx(volume(solids.icosphere(0.5, subdivisions=2)), rel=0.12)
    np.testing.assert_allclose(back.bounds.sum(axis=0), 0, atol=2e-3)


@pytest.mark.parametrize("link", ["union", *WRAPPING])
def test_the_same_mesh_gives_the_same_bytes(link):
    raw = solids.join(BOX, solids.box((0.4, 0.5, 0.9), (0.4, 0.3, 0.1)))
    first, second = (make_watertight(raw, settings(link)) for _ in range(2))
    assert first.value.vertices.tobytes() == second.value.vertices.tobytes()
    assert first.value.faces.tobytes() == second.value.faces.tobytes()
    assert first.figures == second.figures


def test_the_chain_goes_on_where_a_link_is_refused_and_tells_why():
    product = make_watertight(without_face(solids.icosphere(0.5), 7), settings("keep", "shell"))
    assert product.figures["link"] == "shell"
    assert product.figures["refused"] == {"keep": "open edges: 3, edges of more than two faces: 0"}


def crossings(mesh: Mesh) -> tuple[int, int]:
    """Of the mesh as it is, and as the canonical frame stores it."""
    return self_intersections(mesh), self_intersections(scale_to_off(mesh, mesh, ScaleSettings()).value)


TANGLED = solids.moved(
    solids.join(solids.icosphere(0.3, subdivisions=2), solids.icosphere(0.3, (0.37, 0.05, 0), 2), solids.torus()),
    (100, 0, 0),
)


@pytest.mark.parametrize("resolution", [64, 100])
@pytest.mark.parametrize("link", ["shell", "thick_shell", "alpha_wrap"])
def test_forbidden_self_intersections_are_none_by_the_exact_test(link, resolution):
    spoiled = without_face(TANGLED, 11)
    product = make_watertight(spoiled, settings(link, resolution=resolution, self_intersections="forbid"))
    assert_solid(product.value)
    assert crossings(product.value) == (0, 0)
    assert product.figures["self_intersections"] == 0


def test_a_shell_that_is_drawn_back_too_far_crosses_itself_where_that_is_allowed():
    """Otherwise the test above could not fail."""
    tight = {"shrink": 0.0, "resolution": 100}
    spoiled = without_face(TANGLED, 11)
    assert make_watertight(spoiled, settings("shell", **tight)).figures["self_intersections"] > 0
    strict = make_watertight(spoiled, settings("shell", self_intersections="forbid", **tight))
    assert crossings(strict.value) == (0, 0)


def test_a_raw_mesh_whose_coordinates_cannot_be_told_apart_has_no_embedded_result():
    far = solids.moved(solids.icosphere(0.5, subdivisions=3), (1e13, 0, 0), 0.02)
    with pytest.raises(Rejected, match=r"cross|edges|faces|volume"):
        make_watertight(far, settings("shell", self_intersections="forbid"))


def test_simplifying_keeps_the_shell_manifold_and_saves_most_faces():
    raw = without_face(solids.torus(), 5)
    whole = make_watertight(raw, settings("shell", simplify=None)).value
    saved = make_watertight(raw, settings("shell", simplify=1e-3)).value
    assert_solid(saved)
    assert len(saved.faces) < len(whole.faces) / 2
    assert distance(saved, whole.vertices).max() < 2e-3


def test_the_ledger_tells_what_was_added_and_how_thick_a_sheet_became():
    open_box = Mesh(BOX.vertices, BOX.faces[np.r_[1:6, 7:12]])
    figures = make_watertight(open_box, settings("shell")).figures
    assert figures["thickness_added"] == pytest.approx(2 * 0.25 / 64, rel=0.05)
    assert figures["thickness"] == pytest.approx(figures["thickness_added"], rel=0.05)
    assert make_watertight(BOX, settings("keep")).figures["thickness_added"] == pytest.approx(0, abs=1e-6)


def test_a_grid_that_does_not_fit_into_the_memory_says_so(monkeypatch):
    import resource

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (used + 300 * 2**20, resource.RLIM_INFINITY))
    with pytest.raises(MemoryError, match=r"a grid of 1033 x .* nodes needs .* MB, and .* MB are left"):
        make_watertight(without_face(BOX, 3), settings("shell", resolution=1024))


def test_a_result_that_loses_surface_is_refused():
    # A deep slit too narrow for the grid: left closed, the shell bridges it, though its walls can be seen.
    halves = [solids.box((0.5, 1, 0.4), (side * (0.25 + 0.004), 0, 0)) for side in (-1, 1)]
    raw = solids.join(*halves, solids.box((0.2, 0.05, 0.05)))
    strict = AcceptanceSettings(far_lost=0.001, mean_distance=0.004)
    with pytest.raises(Rejected, match=r"no method closes it.*shell: surface was lost"):
        make_watertight(raw, settings("shell", acceptance=strict, slits=()))
    assert make_watertight(raw, settings("shell", acceptance=strict)).figures["slits"] == 4


def test_a_result_that_adds_surface_is_refused():
    with pytest.raises(Rejected, match="thick_shell: surface was added"):
        make_watertight(BOX, settings("thick_shell", shrink=None, acceptance=AcceptanceSettings(max_added=0.002)))


@pytest.mark.parametrize(
    ("mesh", "reason"),
    [
        (Mesh(np.zeros((0, 3)), np.zeros((0, 3))), "no faces"),
        (Mesh([[1, 1, 1]] * 4, [[0, 1, 2], [1, 2, 3]]), "no extent"),
        (
            Mesh(np.outer(np.arange(9), [0.1, 0.2, 0.3]), [[i, i + 1, i + 2] for i in range(7)]),
            "an area of their own: 0",
        ),
        (Mesh(np.eye(3), [[0, 1, 2]]), "an area of their own: 1; a solid needs 4"),
        (Mesh([[np.nan, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]]), "not finite"),
    ],
)
def test_what_has_no_surface_is_rejected_with_the_reason(mesh, reason):
    with pytest.raises(Rejected, match=reason):
        make_watertight(mesh, settings())


def test_settings_name_only_known_links():
    with pytest.raises(ValueError, match="alpha_wrap"):
        WatertightSettings(chain=("keep", "magic"))
