"""A finished shape without symmetry, as the store would give it, in a source frame of its own."""

import numpy as np

from pipeline.exchange.shape import FinishedShape
from pipeline.samples.boundary import BoundarySettings, sample_boundary
from pipeline.samples.sdf import SdfSettings, compute_sdf
from pipeline.samples.surface import SurfaceSettings, sample_surface
from pipeline.samples.views import ViewSettings, render_views
from pipeline.samples.volume import VolumeSettings, sample_volume
from pipeline.samples.voxels import VoxelSettings, voxelize
from pipeline.seeds import rng_for
from tests import solids

LOC, SCALE = np.array((3.0, -2.0, 0.5)), 2.5


def finished(shape="a1", split="train", views=2, pixels=40) -> FinishedShape:
    mesh = solids.three_boxes()
    volume = sample_volume(mesh, VolumeSettings(count=1003), rng_for(0, "volume", shape)).value
    near = sample_boundary(mesh, BoundarySettings(sigma=0.05, count=500), rng_for(0, "near", shape)).value
    sets = {"volume": volume["points"], "boundary-0.05": near["points"]}
    products = {
        "surface": sample_surface(mesh, SurfaceSettings(count=700), rng_for(0, "surface", shape)).value,
        "volume": volume,
        "boundary-0.05": near,
        "sdf": compute_sdf(mesh, sets, SdfSettings()).value,
        "views": render_views(mesh, ViewSettings(views=views, resolution=pixels), rng_for(0, "views", shape)).value,
    }
    arrays = {f"{prefix}.{name}": array for prefix, value in products.items() for name, array in value.items()}
    arrays["voxels.32"] = voxelize(mesh, VoxelSettings(resolution=32)).value["occupancies"]
    return FinishedShape("03001627", shape, split, LOC, SCALE, mesh, arrays)
