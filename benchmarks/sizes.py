"""What a shape takes in the store, stage by stage, against the limits.

    python -m benchmarks.sizes                               # shapes of the embedded demo
    python -m benchmarks.sizes ../shared/meshes --shapes 20  # or of a folder of meshes, evenly chosen

Every stage runs at its defaults; sizes are those of the stored files. MB are 10^6 bytes.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import table
from pipeline.arrays import Product, Rejected
from pipeline.encoding import encode
from pipeline.meshes.read import ReadSettings, extract_meshes
from pipeline.meshes.scale import ScaleSettings, scale_to_off
from pipeline.meshes.watertight import WatertightSettings, make_watertight
from pipeline.samples.boundary import BoundarySettings, sample_boundary
from pipeline.samples.sdf import SdfSettings, compute_sdf
from pipeline.samples.surface import SurfaceSettings, sample_surface
from pipeline.samples.views import ViewSettings, render_views
from pipeline.samples.volume import VolumeSettings, sample_volume
from pipeline.samples.voxels import VoxelSettings, voxelize
from pipeline.seeds import rng_for
from pipeline.sources.catalogue import RawFile, read_raw
from pipeline.sources.demo import DemoSettings, make_shape, obj_text
from pipeline.sources.directory import DirectorySettings, list_directory
from pipeline.stages import stage_of

SIGMAS = (0.1, 0.01)
FEWER = "sample_surface, 30,000 points"
NEAR = "compute_sdf, boundaries only"
ALL = (
    *("extract_meshes", "make_watertight", "scale_to_off", "sample_surface"),
    *(f"sample_boundary/{sigma:g}" for sigma in SIGMAS),
    *("sample_volume", "compute_sdf", "voxelize/64"),
)
EXTRA = ("voxelize/32", "render_views")
LIMITS = {
    "ifnet: 30k surface, 2 x 100k near it with SDF": (
        (FEWER, "sample_boundary/0.1", "sample_boundary/0.01", NEAR),
        2.0,
    ),
    "onet: 100k surface, 100k volume": (("sample_surface", "sample_volume"), 2.5),
    "the whole store at the defaults": (ALL, 8.0),
    "the same without meshes that `store.drop` may drop": (ALL[2:], 8.0),
    "all, with 32^3 voxels and 24 views": ((*ALL, *EXTRA), 8.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, help="a folder of meshes; by default the demo's shapes")
    parser.add_argument("--shapes", type=int, default=12, help="how many shapes (12)")
    options = parser.parse_args()
    sizes = []
    for raw in raw_files(options.folder, options.shapes):
        try:
            sizes.append(stored_sizes(raw))
        except Rejected as reason:
            print(f"{raw.name} is left out: {reason}")
    print(f"{len(sizes)} shapes\n")
    print(table(("stage", "MB, median", "MB, largest"), [size_row(name, (name,), sizes) for name in sizes[0]]))
    print()
    rows = [(*size_row(label, names, sizes), limit) for label, (names, limit) in LIMITS.items()]
    verdicts = [(*row, "within" if row[2] <= row[3] else "OVER for some") for row in rows]
    print(table(("together", "MB, median", "MB, largest", "limit", "verdict"), verdicts))


def size_row(label: str, names: tuple[str, ...], sizes: list[dict[str, int]]) -> tuple[str, float, float]:
    """Median and largest of the sum of some stages over the shapes, MB."""
    sums = [sum(of_shape[name] for name in names) / 1e6 for of_shape in sizes]
    return label, statistics.median(sums), max(sums)


def raw_files(folder: Path | None, count: int) -> Iterator[RawFile]:
    if folder is None:
        settings = DemoSettings()
        for index in range(count):
            category = settings.categories[index % len(settings.categories)]
            yield RawFile(obj_text(make_shape(category, index // len(settings.categories), settings)).encode(), "m.obj")
        return
    entries, _ = list_directory(DirectorySettings(path=str(folder)))
    usable = [entry for entry in entries if entry.reason is None and "malformed" not in entry.id]
    for entry in usable[:: max(1, len(usable) // count)][:count]:
        raw = read_raw(entry.location)
        yield RawFile(raw.content, f"{entry.id}/{raw.name}", raw.companions)


def stored_sizes(raw: RawFile) -> dict[str, int]:
    """Bytes of every stored file of one shape, by stage."""
    made = products(raw)
    return {name: len(encode(product, stage_of(name.split(",")[0]).format)) for name, product in made.items()}


def products(raw: RawFile) -> dict[str, Product]:
    """The products of all stages at their defaults; those of the `ifnet` preset that differ beside them."""
    made = {"extract_meshes": extract_meshes(raw.content, raw.name, raw.companions, settings=ReadSettings())}
    source = made["extract_meshes"].value
    made["make_watertight"] = make_watertight(source, settings=WatertightSettings())
    made["scale_to_off"] = scale_to_off(made["make_watertight"].value, source, ScaleSettings())
    mesh = made["scale_to_off"].value
    made["sample_surface"] = sample_surface(mesh, SurfaceSettings(), rng_for(0, "surface"))
    made[FEWER] = sample_surface(mesh, SurfaceSettings(count=30_000), rng_for(0, "surface"))
    near = {}
    for sigma in SIGMAS:
        product = sample_boundary(mesh, BoundarySettings(sigma=sigma), rng_for(0, f"near {sigma}"))
        made[f"sample_boundary/{sigma:g}"] = product
        near[f"boundary-{sigma:g}"] = product.value["points"]
    made["sample_volume"] = sample_volume(mesh, VolumeSettings(), rng_for(0, "volume"))
    made["compute_sdf"] = compute_sdf(mesh, near | {"volume": made["sample_volume"].value["points"]}, SdfSettings())
    made[NEAR] = compute_sdf(mesh, near, SdfSettings())
    made["voxelize/64"] = voxelize(mesh, VoxelSettings(resolution=64))
    made["voxelize/32"] = voxelize(mesh, VoxelSettings(resolution=32))
    made["render_views"] = render_views(mesh, ViewSettings(), rng_for(0, "views"))
    return made


if __name__ == "__main__":
    main()
