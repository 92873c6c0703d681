"""What a shape takes on disk at the default precision: its samples, and everything the store has of it."""

import pytest

from benchmarks.sizes import ALL, EXTRA, LIMITS, stored_sizes
from pipeline.samples.boundary import BoundarySettings, sample_boundary
from pipeline.samples.sdf import SdfSettings, compute_sdf
from pipeline.samples.surface import SurfaceSettings, sample_surface
from pipeline.samples.volume import VolumeSettings, sample_volume
from pipeline.seeds import rng_for
from pipeline.sources.catalogue import RawFile
from pipeline.sources.demo import DemoSettings, make_shape, obj_text
from pipeline.storage import encode
from tests import solids

MESH = solids.three_boxes()


def stored_megabytes(*products):
    return sum(encode(p.value[name], p.encoding[name]).nbytes for p in products for name in p.value) / 1e6


def test_surface_and_two_labelled_boundaries_take_two_megabytes():
    surface = sample_surface(MESH, SurfaceSettings(count=30_000), rng_for(0, "surface"))
    near = {
        f"boundary-{sigma}": sample_boundary(MESH, BoundarySettings(sigma=sigma), rng_for(0, f"boundary-{sigma}"))
        for sigma in (0.01, 0.1)
    }
    distances = compute_sdf(MESH, {name: product.value["points"] for name, product in near.items()}, SdfSettings())
    assert all(len(values) == 100_000 for values in distances.value.values())
    assert stored_megabytes(surface, *near.values(), distances) <= 2.0


def test_surface_and_volume_of_a_hundred_thousand_points_take_two_and_a_half_megabytes():
    surface = sample_surface(MESH, SurfaceSettings(), rng_for(0, "surface"))
    volume = sample_volume(MESH, VolumeSettings(), rng_for(0, "volume"))
    assert len(surface.value["points"]) == len(volume.value["points"]) == 100_000
    assert stored_megabytes(surface, volume) <= 2.5


@pytest.mark.parametrize("category", ["chair", "airplane"])
def test_everything_the_store_has_of_a_shape_takes_eight_megabytes(category):
    text = obj_text(make_shape(category, 0, DemoSettings()))
    sizes = stored_sizes(RawFile(text.encode(), "model.obj"))
    assert set(ALL) | set(EXTRA) < set(sizes)
    for names, megabytes in LIMITS.values():
        assert sum(sizes[name] for name in names) / 1e6 <= megabytes
