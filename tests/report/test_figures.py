import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from pipeline.arrays import Mesh
from pipeline.geometry.measures import volume
from pipeline.report import figures
from tests import solids

SIZE = 65  # odd, so that the middle of the picture is a pixel


def picture(mesh, view=(0.0, 0.0), size=SIZE):
    """RGBA in [0, 1], (rows, columns, 4)."""
    return np.asarray(Image.open(io.BytesIO(figures.render_mesh(mesh, size, view)))) / 255


def centroid(mesh, view):
    """Centre of the covered pixels: rightward and upward from the middle, in pixels."""
    alpha = picture(mesh, view)[..., 3]
    rows, columns = np.indices(alpha.shape)
    middle = (SIZE - 1) / 2
    return np.array([(columns * alpha).sum(), (-rows * alpha).sum()]) / alpha.sum() + [-middle, middle]


def projected(point, view):
    """Where a point should be, by the textbook: turn about y, tilt about x, divide by the depth."""
    azimuth, elevation = np.radians(view)
    x, y, z = point
    right, ahead = x * np.cos(azimuth) - z * np.sin(azimuth), x * np.sin(azimuth) + z * np.cos(azimuth)
    up, toward = y * np.cos(elevation) - ahead * np.sin(elevation), y * np.sin(elevation) + ahead * np.cos(elevation)
    return np.array([right, up]) / (figures.CAMERA_DISTANCE - toward)


@pytest.mark.parametrize(
    ("centre", "view", "direction"),
    [
        ((0.35, 0, 0), (0, 0), (1, 0)),
        ((0, 0.35, 0), (0, 0), (0, 1)),
        ((0, 0, 0.35), (90, 0), (-1, 0)),
        ((-0.35, 0, 0), (180, 0), (1, 0)),
        ((0, 0, 0.35), (0, 89), (0, -1)),
    ],
)
def test_a_box_on_an_axis_appears_where_that_axis_points(centre, view, direction):
    offset = centroid(solids.box((0.1, 0.1, 0.1), centre), view) - centroid(solids.box((0.1, 0.1, 0.1)), view)
    np.testing.assert_allclose(offset / np.linalg.norm(offset), direction, atol=0.03)


@pytest.mark.parametrize("view", [(0, 0), (30, 22), (207, 20), (115, -35)])
def test_a_solid_without_symmetry_is_neither_mirrored_nor_turned(view):
    centres = [centre for _, centre in solids.THREE_BOXES]
    seen = np.diff([centroid(solids.box((0.04, 0.04, 0.04), centre), view) for centre in centres], axis=0)
    expected = np.diff([projected(centre, view) for centre in centres], axis=0)
    scale = np.linalg.norm(seen) / np.linalg.norm(expected)
    np.testing.assert_allclose(seen, scale * expected, atol=0.5)


def test_the_unit_box_fills_the_picture_and_stays_inside():
    for view in ((0, 0), (207, 20), (45, 35)):
        alpha = picture(solids.box(), view)[..., 3]
        border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
        assert border.max() < 1
        assert max(np.ptp(np.nonzero(alpha)[0]), np.ptp(np.nonzero(alpha)[1])) > 0.95 * SIZE


def test_winding_and_openness_do_not_change_the_picture():
    mesh = solids.three_boxes()
    rng = np.random.default_rng(0)
    flip = rng.random(len(mesh.faces)) < 0.5
    soup = Mesh(mesh.vertices, np.where(flip[:, None], mesh.faces[:, ::-1], mesh.faces))
    np.testing.assert_array_equal(picture(mesh, (207, 20)), picture(soup, (207, 20)))


def test_the_nearer_surface_hides_the_farther():
    small = solids.box((0.2, 0.2, 0.2), (0, 0, -0.3))
    wall = solids.box((0.8, 0.8, 0.1), (0, 0, 0.3))
    np.testing.assert_array_equal(picture(solids.join(wall, small)), picture(wall))
    assert not np.array_equal(picture(solids.join(wall, small), (180, 0)), picture(wall, (180, 0)))


def test_upward_surfaces_are_brighter_than_downward_ones_and_shadow_is_darker():
    def brightness(mesh, view):
        return picture(mesh, view)[SIZE // 2, SIZE // 2, :3].sum()

    slab = solids.box((0.6, 0.1, 0.6), (0, -0.05, 0))
    assert brightness(slab, (0, 80)) > 1.5 * brightness(slab, (0, -80))
    roofed = solids.join(slab, solids.box((0.6, 0.02, 0.6), (0, 0.3, 0)))
    assert brightness(roofed, (0, 30)) < 0.9 * brightness(slab, (0, 30))


def test_equal_meshes_give_equal_bytes_and_the_ground_is_transparent():
    mesh = solids.torus(sections=(24, 12))
    assert figures.render_mesh(mesh, 64) == figures.render_mesh(mesh, 64)
    image = Image.open(io.BytesIO(figures.render_mesh(mesh, 64)))
    assert (image.format, image.size, image.mode) == ("PNG", (64, 64), "RGBA")
    assert image.getpixel((0, 0))[3] == 0


def test_points_of_a_surface_look_like_the_surface_where_they_lie():
    rng = np.random.default_rng(0)
    cloud = rng.standard_normal((4000, 3))
    cloud = 0.3 * cloud / np.linalg.norm(cloud, axis=1, keepdims=True) + (0.1, -0.05, 0)
    splats = figures.splats(cloud, radius=0.02)
    ball = solids.icosphere(0.3, (0.1, -0.05, 0))
    covered, wanted = (picture(mesh, (30, 10))[..., 3] > 0.5 for mesh in (splats, ball))
    assert (covered & wanted).sum() > 0.97 * wanted.sum() and covered.sum() < 1.2 * wanted.sum()
    one = figures.splats(np.zeros((5, 3)), most=1, radius=0.1)
    assert volume(one) == pytest.approx(4 / 3 * 0.1**3)


def test_a_mesh_without_faces_gives_an_empty_picture():
    empty = Mesh(np.zeros((0, 3)), np.zeros((0, 3), int))
    assert picture(empty)[..., 3].max() == 0


def test_plots_are_valid_and_repeatable_and_take_names_literally():
    scores = {"$x$ <b> & \u202e": [0.2, float("nan"), 0.7], "none": []}
    drawing = figures.score_distribution(scores, "IoU")
    assert drawing == figures.score_distribution(scores, "IoU")
    words = "".join(ElementTree.fromstring(drawing).itertext())
    assert "$x$ <b> & \ufffd" in words


def test_a_curve_keeps_steps_with_their_values_and_leaves_out_what_was_not_measured():
    history = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}, {"step": 3, "loss": 1.0, "iou": 0.5}]
    assert figures.series(history, "loss") == ([1, 3], [2.0, 1.0])
    assert figures.series(history, "iou") == ([3], [0.5])
    assert b"held-out IoU" in figures.learning_curve(history)
    assert b"held-out IoU" not in figures.learning_curve(history[:2])
