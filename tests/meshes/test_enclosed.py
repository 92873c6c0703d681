"""The volume that closed meshes have is the one that the raw surface encloses, within a factor."""

import numpy as np
import pytest

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry.closest import Scene
from pipeline.geometry.measures import volume
from pipeline.meshes.enclosed import bulk_edge, growth
from pipeline.meshes.watertight import WatertightSettings, make_watertight
from tests import solids

BALL = solids.icosphere(1.0, subdivisions=3)
OPEN_BALL = Mesh(BALL.vertices, BALL.faces[1:])
SPECK = Mesh([(0, 0, 0), (0.01, 0, 0), (0, 0.01, 0)], [(0, 1, 2)])


def with_outliers(mesh: Mesh, *places: tuple[float, float, float]) -> Mesh:
    return solids.join(mesh, *(solids.moved(SPECK, place) for place in places))


@pytest.mark.parametrize("mesh", [BALL, OPEN_BALL], ids=["closed", "open"])
@pytest.mark.parametrize("places", [[(1000, 0, 0)], [(0, 3e4, 0), (-3e4, 0, 50)]], ids=["one", "two"])
@pytest.mark.parametrize("interior", ["hollow", "solid"])
def test_a_body_smaller_than_a_voxel_beside_lone_outliers_is_refused_with_what_to_try(mesh, places, interior):
    reason = (
        r"thick_shell: 99% of its surface lies within \S+ of its longest edge, less than a voxel .* \(1/256\): remove"
    )
    with pytest.raises(Rejected, match=reason):
        make_watertight(with_outliers(mesh, *places), WatertightSettings(interior=interior))


@pytest.mark.parametrize(("link", "distance"), [("shell", 12), ("shell", 50), ("thick_shell", 50), ("alpha_wrap", 50)])
def test_what_is_accepted_beside_an_outlier_keeps_its_volume_within_the_factor(link, distance):
    settings = WatertightSettings(chain=(link,), resolution=32, acceptance={"edge_change": 0.99})
    result = make_watertight(with_outliers(OPEN_BALL, (distance, 0, 0)), settings).value
    assert 1 / 4 < volume(result) / volume(BALL) < 4


def test_what_would_grow_by_more_than_the_factor_is_refused_with_what_to_try():
    far = with_outliers(OPEN_BALL, (50, 0, 0))
    strict = {"edge_change": 0.99, "growth": 2}
    settings = WatertightSettings(chain=("thick_shell",), resolution=32, acceptance=strict)
    reason = r"its volume is 2\.\d+ times what the raw surface encloses, more than acceptance\.growth = 2: .*remove"
    with pytest.raises(Rejected, match=reason):
        make_watertight(far, settings)


def test_plates_thinner_than_the_grid_are_given_the_thickness_that_it_can_hold():
    plate = solids.join(solids.box((1.0, 1.0, 0.004)), SPECK)  # the speck opens it, so that it cannot be kept
    assert make_watertight(plate, WatertightSettings(chain=("shell",), resolution=32)).figures["link"] == "shell"


@pytest.mark.parametrize("thicker", [0.01, 0.1, 0.3])
def test_growth_is_the_ratio_of_two_balls(thicker):
    grown = growth(solids.icosphere(1 + thicker, subdivisions=4), Scene(OPEN_BALL))
    assert grown == pytest.approx((1 + thicker) ** 3, rel=0.06)


def test_sheets_have_no_growth():
    walls = solids.box((1.0, 0.7, 0.5))
    tub = Mesh(walls.vertices, walls.faces[np.r_[1:6, 7:12]])
    closed = make_watertight(tub, WatertightSettings(chain=("shell",), resolution=64)).value
    assert growth(closed, Scene(tub)) == 1


def test_the_bulk_leaves_out_what_has_hardly_any_surface():
    assert bulk_edge(BALL) == pytest.approx(2, rel=0.03)
    assert bulk_edge(with_outliers(BALL, (1000, 0, 0))) == pytest.approx(2, rel=0.03)
    assert bulk_edge(solids.join(BALL, solids.moved(BALL, (10, 0, 0)))) == pytest.approx(12, rel=0.03)
