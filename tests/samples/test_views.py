"""Rendered views: every pixel against closed forms seen through the stored cameras."""

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.arrays import Mesh, Rejected
from pipeline.samples.views import ViewSettings, camera, render_views
from pipeline.seeds import rng_for
from pipeline.storage import decode, encode
from tests import solids

SPHERES = ((0.3, (0.15, -0.1, 0.05)), (0.12, (-0.3, 0.25, -0.28)))  # no symmetry, off centre


def stream(name="test"):
    return rng_for(0, "render_views", name)


def two_spheres():
    return solids.join(*(solids.icosphere(radius, centre, subdivisions=5) for radius, centre in SPHERES))


def rays_of(value, view, places):
    """Origin and directions of the rays through pixel places (n, 2), by the stored cameras alone."""
    pose = value["extrinsics"][view].astype(float)
    ahead = np.linalg.solve(value["intrinsics"][view].astype(float), np.column_stack([places, np.ones(len(places))]).T)
    return -pose[:, :3].T @ pose[:, 3], (pose[:, :3].T @ ahead).T


def meets(origin, directions, radius, centre):
    """Whether each ray meets a sphere."""
    along = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    to_centre = np.asarray(centre) - origin
    ahead = along @ to_centre
    return (ahead > 0) & (to_centre @ to_centre - ahead**2 < radius**2)


def pixels_of(value, view, points):
    seen = points @ value["extrinsics"][view][:, :3].T + value["extrinsics"][view][:, 3]
    assert (seen[:, 2] > 0).all()
    projected = seen @ value["intrinsics"][view].T
    return projected[:, :2] / projected[:, 2:]


@pytest.fixture(scope="module")
def spheres():
    return render_views(two_spheres(), ViewSettings(views=6), stream())


def test_by_default_there_are_24_views_of_137_pixels():
    value = render_views(solids.three_boxes(), ViewSettings(), stream()).value
    assert value["images"].shape == (24, 137, 137, 4)
    assert value["images"].dtype == np.uint8
    assert (value["intrinsics"].shape, value["extrinsics"].shape) == ((24, 3, 3), (24, 3, 4))
    assert value["viewpoints"].shape == (24, 3)


@pytest.mark.parametrize("view", range(6))
def test_the_silhouette_is_where_the_cameras_see_the_solid(spheres, view):
    size, finer = 137, 4
    places = (np.indices((size * finer, size * finer)).reshape(2, -1).T[:, ::-1] + 0.5) / finer
    origin, directions = rays_of(spheres.value, view, places)
    hit = np.any([meets(origin, directions, *sphere) for sphere in SPHERES], axis=0)
    exact = hit.reshape(size, finer, size, finer).mean(axis=(1, 3))
    alpha = spheres.value["images"][view, ..., 3] / 255
    assert alpha.sum() == pytest.approx(exact.sum(), rel=5e-3)
    assert np.abs(alpha - exact).max() <= 0.5  # a pixel at the border, four rays against sixteen
    assert (alpha[exact == 1] == 1).mean() > 0.99
    assert (alpha[exact == 0] == 0).mean() > 0.999


def test_colour_is_black_where_nothing_is_and_grey_elsewhere(spheres):
    images = spheres.value["images"]
    assert (images[images[..., 3] == 0] == 0).all()
    shown = images[images[..., 3] > 0]
    assert (shown[:, 0] == shown[:, 1]).all()
    assert (shown[:, 0] == shown[:, 2]).all()
    assert shown[:, 0].min() > 50
    assert np.ptp(shown[:, 0]) > 60  # shading tells the form
    assert len(np.unique(images[..., 3])) == 5


def test_light_falls_from_above_and_from_the_left(spheres):
    for picture in spheres.value["images"].astype(float):
        rows, columns = np.nonzero(picture[..., 3] == 255)
        grey = picture[rows, columns, 0] - picture[rows, columns, 0].mean()
        assert grey @ (rows - rows.mean()) < 0
        assert grey @ (columns - columns.mean()) < 0


def test_every_vertex_lies_in_the_silhouette():
    mesh = solids.three_boxes()
    value = render_views(mesh, ViewSettings(views=8), stream()).value
    for view, picture in enumerate(value["images"]):
        covered = np.pad(picture[..., 3] > 0, 2)
        for column, row in np.floor(pixels_of(value, view, mesh.vertices)).astype(int) + 2:
            assert covered[row - 1 : row + 2, column - 1 : column + 2].any()


def test_the_nearer_solid_hides_the_farther():
    # From +x, a small box stands before a large one; its face, nearer, is the one that turns towards the camera.
    large, small = solids.box((0.1, 0.9, 0.9), (-0.4, 0, 0)), solids.icosphere(0.1, (0.3, 0, 0), 3)
    settings = ViewSettings(views=1, azimuth=(0, 0), elevation=(0, 0), distance=(0.8, 0.8))
    value = render_views(solids.join(large, small), settings, stream()).value
    middle = value["images"][0, 60:77, 60:77, 0]
    alone = render_views(large, settings, stream()).value["images"][0, 60:77, 60:77, 0]
    assert np.ptp(alone) <= 1
    assert np.ptp(middle) > 20


def test_cameras_stand_where_3d_r2n2_put_them():
    mesh = solids.moved(solids.three_boxes(), (0.3, -0.2, 0.1), 0.7)
    value = render_views(mesh, ViewSettings(), stream()).value
    azimuth, elevation, distance = value["viewpoints"].astype(float).T
    assert (azimuth >= 0).all()
    assert (azimuth < 360).all()
    assert np.ptp(azimuth) > 200
    assert (elevation >= 25).all()
    assert (elevation <= 30).all()
    assert (distance >= 0.65).all()
    assert (distance <= 0.95).all()
    low, high = mesh.bounds
    a, e = np.radians([azimuth, elevation])
    towards = np.stack([np.cos(e) * np.cos(a), np.sin(e), np.cos(e) * np.sin(a)], axis=1)
    expected = (low + high) / 2 + (distance * 1.75 * np.linalg.norm(high - low))[:, None] * towards
    poses = value["extrinsics"].astype(float)
    places = -np.einsum("vji,vj->vi", poses[:, :, :3], poses[:, :, 3])
    np.testing.assert_allclose(places, expected, atol=1e-5)
    focal, middle = 137 * 35 / 32, 137 / 2
    np.testing.assert_allclose(value["intrinsics"][5], [(focal, 0, middle), (0, focal, middle), (0, 0, 1)], rtol=1e-6)


@pytest.mark.parametrize(("azimuth", "right"), [(0, (0, 0, -1)), (90, (1, 0, 0)), (180, (0, 0, 1))])
def test_up_is_up_and_right_is_right(azimuth, right):
    pose = camera(azimuth, 20, 0.8, 2.0, np.zeros(3))
    np.testing.assert_allclose(pose[:, :3] @ pose[:, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(pose[:, :3]) == pytest.approx(1)
    np.testing.assert_allclose(pose[0, :3], right, atol=1e-12)
    assert pose[1, :3] @ (0, 1, 0) < 0  # rows grow downward
    np.testing.assert_allclose(pose[:, 3], (0, 0, 1.6))


@pytest.mark.parametrize(("up", "roll"), [("z", 1), ("x", -1)])
def test_another_up_axis_is_the_same_scene_turned(up, roll):
    mesh = solids.three_boxes()
    turned = Mesh(np.roll(mesh.vertices, roll, axis=1), mesh.faces)
    settings = ViewSettings(views=2, resolution=48)
    upright = render_views(mesh, settings, stream()).value["images"].astype(int)
    other = render_views(turned, settings.model_copy(update={"up": up}), stream()).value["images"].astype(int)
    assert (np.abs(upright - other).max(axis=-1) > 2).mean() < 1e-3


def test_no_view_is_empty_and_the_figures_say_so():
    thin = solids.box((1.0, 0.004, 0.02), (0, 0.2, 0))
    for mesh in (thin, solids.torus(), solids.box((0.05, 1, 0.05))):
        product = render_views(mesh, ViewSettings(resolution=64), stream())
        assert (product.value["images"][..., 3].sum(axis=(1, 2)) > 255).all()
        assert 0 < product.figures["covered_share"]["least"] <= product.figures["covered_share"]["mean"] < 1


def test_the_picture_grows_with_the_resolution():
    product = render_views(solids.torus(), ViewSettings(views=2, resolution=224), stream())
    small = render_views(solids.torus(), ViewSettings(views=2), stream())
    assert product.value["images"].shape == (2, 224, 224, 4)
    assert product.figures["covered_share"]["mean"] == pytest.approx(small.figures["covered_share"]["mean"], rel=5e-3)


def test_fewer_views_are_the_first_of_many():
    few, many = (
        render_views(solids.three_boxes(), ViewSettings(views=views, resolution=32), stream()).value for views in (2, 5)
    )
    for name, array in few.items():
        np.testing.assert_array_equal(array, many[name][:2])


def test_the_stream_decides_every_byte():
    def stored(name):
        product = render_views(solids.three_boxes(), ViewSettings(views=2, resolution=32), stream(name))
        return encode(product.value["images"], product.encoding["images"]).tobytes()

    assert stored("a") == stored("a")
    assert stored("a") != stored("b")


def test_views_are_stored_without_loss_in_less_than_a_quarter_of_a_megabyte():
    product = render_views(solids.torus(), ViewSettings(), stream())
    images, encoding = product.value["images"], product.encoding["images"]
    stored = encode(images, encoding)
    assert stored.nbytes < 250_000
    np.testing.assert_array_equal(decode(stored, encoding), images)


def test_a_camera_inside_the_box_is_refused():
    with pytest.raises(ValidationError, match="inside the shape's box"):
        ViewSettings(distance=(0.2, 0.9))


@pytest.mark.parametrize("key", ["azimuth", "elevation", "distance"])
def test_a_range_goes_from_low_to_high(key):
    with pytest.raises(ValidationError, match=key):
        ViewSettings(**{key: (0.9, 0.8)})


def test_a_mesh_without_area_is_rejected():
    with pytest.raises(Rejected, match="area"):
        render_views(Mesh([(0, 0, 0), (1, 1, 1), (2, 2, 2)], [(0, 1, 2)]), ViewSettings(), stream())


def test_depths_are_those_of_the_sphere_along_the_cameras_axis():
    value = render_views(solids.icosphere(0.4, subdivisions=5), ViewSettings(views=2, depth=True), stream()).value
    for view in range(2):
        rows, columns = np.nonzero(value["depths"][view])
        places = np.column_stack([columns, rows]) + 0.5
        origin, directions = rays_of(value, view, places)
        points = origin + value["depths"][view][rows, columns][:, None] * directions
        assert np.abs(np.linalg.norm(points, axis=1) - 0.4).max() < 2e-3  # the icosphere's faces lie inside by that
        assert len(rows) == pytest.approx((value["images"][view, ..., 3] / 255).sum(), rel=0.02)
        assert ((points - origin) * points).sum(axis=1).max() < 1e-2  # the near side


def test_depths_are_made_where_asked_only_and_change_nothing_else():
    plain, with_depth = (render_views(two_spheres(), ViewSettings(views=1, depth=d), stream()) for d in (False, True))
    assert "depths" not in plain.value
    np.testing.assert_array_equal(plain.value["images"], with_depth.value["images"])
    depths, kind = with_depth.value["depths"], with_depth.encoding["depths"]
    np.testing.assert_array_equal(decode(encode(depths, kind), kind), depths)
