"""How models name the arrays of a shape: one flat mapping, whatever stages they come from."""

from __future__ import annotations

PREFIXES = {
    "sample_surface": "surface",
    "sample_volume": "volume",
    "compute_sdf": "sdf",
    "voxelize": "voxels",
    "render_views": "views",
}


def array_prefix(instance: str) -> str:
    """The first part of the names of an instance's arrays: "surface", "boundary-0.1", "sdf", "voxels", "views" …"""
    stage, _, variant = instance.partition("/")
    return PREFIXES.get(stage) or f"boundary-{variant}"


def shape_arrays(products: dict[str, dict]) -> dict:
    """The flat arrays of one shape, as models read them, from the products of its instances.

    "voxelize/64" gives "voxels.64"; every other array keeps its own name behind the prefix: "surface.points".
    """
    arrays = {}
    for instance, value in products.items():
        prefix, variant = array_prefix(instance), instance.partition("/")[2]
        for name, array in value.items():
            arrays[f"voxels.{variant}" if prefix == "voxels" else f"{prefix}.{name}"] = array
    return arrays
