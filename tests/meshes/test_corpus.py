"""The corpus of real and malformed meshes beside the repository; every test here is skipped where it is absent."""

import csv
import re

import numpy as np
import pytest

from pipeline.arrays import Rejected
from pipeline.geometry.measures import volume
from pipeline.geometry.quality import is_watertight, nonmanifold_vertices
from pipeline.meshes.read import ReadSettings, extract_meshes
from pipeline.meshes.watertight import WatertightSettings, make_watertight
from tests.meshes.files import CORPUS, needs_corpus

pytestmark = needs_corpus

REASONS = {
    "truncated_vertices.off": "announces 162 vertices and 320 faces, the file holds 77",
    "truncated_faces.off": "announces 162 vertices and 320 faces, the file holds 162 and 165",
    "truncated.obj": "cut off",
    "truncated_binary.ply": "cut off|more than .* bytes",
    "truncated_binary.stl": "announces 320 facets, the file holds 304",
    "ascii_truncated.stl": "cut off",
    "stl_count_too_big.stl": "announces 4294967280 facets, the file holds 320",
    "off_count_too_big.off": "announces 4000000000 vertices",
    "nan_vertices.off": "NaN or infinite coordinates: 1",
    "inf_vertices.obj": "NaN or infinite coordinates: 2",
    "nan_vertices_binary.stl": "NaN",
    "zero_faces.off": "no faces",
    "zero_vertices.off": "no vertices",
    "vertices_only.obj": "no faces",
    "index_out_of_range.off": "vertex 167 of 162",
    "index_out_of_range.obj": "vertex 168 of 162",
    "index_zero.obj": "counts from 1",
    "index_negative.off": "names vertex -",
    "degenerate_all.off": "zero area",
    "degenerate_collinear.obj": "zero area",
    "degenerate_point.stl": "no extent",
    "empty.off": "empty",
    "empty.obj": "empty",
    "empty.ply": "empty",
    "empty.stl": "empty",
    "garbage.obj": "binary",
    "garbage.off": "binary",
    "wrong_extension_png.stl": "PNG",
    "decimal_comma.obj": "decimal comma",
    "three_faces_on_one_edge.off": "a solid needs 4",
    "ply_header_only.ply": "no end_header",
    "ply_face_list_negative.ply": "names vertex -1",
    "real/trimesh_counterXP.3MF": "zip",
    "real/assimp_OutOfMemory.off": "more than 309 bytes can hold",
    "real/assimp_malformed.obj": "counts from 1",
    "real/assimp_box_UTF16BE.obj": "UTF-16",
}
VOLUMES = {"ngons.obj": 0.262695, "ngons.off": 0.262695, "ngons_concave.obj": 0.024}
SPHERES = (
    *("duplicated_faces.off", "duplicated_faces_flipped.off", "duplicated_vertices.obj", "degenerate_some.obj"),
    *("mixed_winding.off", "inside_out.off", "nan_unreferenced.obj", "unreferenced_far_vertex.off"),
    *("huge_1e30.off", "huge_1e39.obj", "tiny_1e-30.off", "far_from_origin.off"),
)
GOOD = (
    *("03001627/kaykit_chair_a", "03001627/aws_chair_a", "02834778/aws_bicycle", "04379243/aws_coffee_table"),
    *("00000000/oded_spot_low", "00000000/assimp_spider", "02871439/kaykit_shelf_b_large", "02828884/kaykit_bench"),
)


def manifest(name: str) -> list[dict[str, str]]:
    if not (CORPUS / name).is_file():
        return []
    with open(CORPUS / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def raw(path: str):
    file = CORPUS / path
    return extract_meshes(file.read_bytes(), file.name, {}, ReadSettings()).value


MALFORMED = [row for row in manifest("malformed/manifest.csv") if not row["file"].endswith(".zip")]


@pytest.mark.parametrize("row", MALFORMED, ids=lambda row: row["file"])
def test_every_odd_file_is_read_whole_or_refused_with_its_reason(row):
    name = row["file"].removeprefix("malformed/")
    toy = WatertightSettings(resolution=16, chain=("keep",)) if name in REASONS else None
    try:
        mesh = raw(row["file"])
        if toy:
            make_watertight(mesh, toy)
    except Rejected as reason:
        assert not row["usable"].startswith("yes"), str(reason)
        assert name in REASONS or name.startswith("real/"), str(reason)
        if name in REASONS:
            assert re.search(REASONS[name], str(reason))
        return
    assert row["usable"] != "no"
    assert name not in REASONS
    assert np.isfinite(mesh.vertices).all()
    if name in VOLUMES:
        assert volume(mesh) == pytest.approx(VOLUMES[name], rel=1e-4)


@pytest.mark.parametrize("row", manifest("manifest.csv"), ids=lambda row: row["file"])
def test_every_real_file_is_read_with_all_its_faces(row):
    mesh = raw(row["file"])
    assert len(mesh.faces) == int(row["faces"])


@pytest.mark.parametrize("name", SPHERES)
def test_spheres_spoiled_in_ways_that_can_be_undone_are_kept(name):
    product = make_watertight(raw(f"malformed/{name}"), WatertightSettings(chain=("keep",)))
    assert product.figures["volume"] == pytest.approx(0.506, rel=0.005)
    assert len(product.value.faces) == 320


def test_nested_spheres_are_told_from_a_hollow_one():
    chain = WatertightSettings(chain=("keep",))
    nested = make_watertight(raw("malformed/nested_same_winding.off"), chain).figures
    hollow = make_watertight(raw("malformed/nested_cavity.off"), chain).figures
    assert (nested["components"], hollow["components"]) == (1, 2)
    assert hollow["volume"] < nested["volume"] - 0.05


@pytest.mark.parametrize("name", GOOD)
def test_real_objects_become_solids_close_to_them(name):
    product = make_watertight(raw(f"{name}/models/model_normalized.obj"), WatertightSettings(resolution=128))
    assert product.figures["link"] in ("keep", "union", "shell")
    assert is_watertight(product.value)
    assert nonmanifold_vertices(product.value) == 0
    assert volume(product.value) > 0
    assert max(product.figures["d_in_mean"], product.figures["d_out_mean"]) < 0.004
