"""The corpus of real and malformed meshes beside the repository; every test here is skipped where it is absent."""

import csv
import re

import pytest

from pipeline.arrays import Rejected
from pipeline.geometry.measures import volume
from pipeline.geometry.quality import is_watertight, nonmanifold_vertices
from pipeline.meshes.read import ReadSettings, extract_meshes
from pipeline.meshes.scale import ScaleSettings, scale_to_off
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
    "single_triangle.off": "a solid needs 4",
    "real/trimesh_empty.obj": "no vertices",
    "real/trimesh_empty.ply": "no vertices",
    "real/trimesh_empty.stl": "no vertices",
    "real/trimesh_ply_empty_header.ply": "no vertices",
    "real/trimesh_stl_empty_bin.stl": "no vertices",
    "real/trimesh_obj_points.obj": "no faces",
    "real/trimesh_ply_points_bin.ply": "no faces",
    "real/trimesh_points_emptyface.ply": "no faces",
    "real/trimesh_obj_wireframe.obj": "no faces",
    "real/trimesh_face_in_group_name.obj": "no faces",
    "real/trimesh_notenoughindices.obj": "area of their own: 1; a solid needs 4",
    "real/trimesh_obj_with_no_face_in_chunk.obj": "area of their own: 1; a solid needs 4",
    "real/trimesh_singlevn.obj": "area of their own: 2; a solid needs 4",
    "real/trimesh_polygonfaces.obj": "area of their own: 3; a solid needs 4",
    "real/trimesh_plane.ply": "area of their own: 2; a solid needs 4",
    "real/trimesh_counterXP.3MF": "zip",
    "real/assimp_malformed2.obj": "names no vertices",
    "real/assimp_fuzz_crash.ply": "no end_header",
    "real/assimp_invalid.off": "announces 2 corners and names 0",
    "real/assimp_number_formats.obj": "'3.1[+]e2' is not a valid number",
    "real/assimp_multiple_spaces.obj": "area of their own: 1; a solid needs 4",
    "real/assimp_regr_3429812.obj": "area of their own: 2; a solid needs 4",
    "real/assimp_triangle_with_empty_solid.stl": "area of their own: 1; a solid needs 4",
    "real/assimp_triangle_with_two_solids.stl": "area of their own: 2; a solid needs 4",
    "real/assimp_OutOfMemory.off": "more than 309 bytes can hold",
    "real/assimp_malformed.obj": "counts from 1",
    "real/assimp_box_UTF16BE.obj": "UTF-16",
}
BALL, BRICK, CUBE, CELL = 0.505881, 0.375, 1.0, 0.353553  # volumes in cubed longest edges
BRICKS = (
    *("wrong_extension_off_inside.obj", "wrong_extension_obj_inside.off", "no_extension", "cr_only.off"),
    *("crlf_comments.off", "crlf_comments.obj", "utf8_bom.obj", "off_counts_on_header_line.off"),
    *("off_counts_glued.off", "coff_colours.off", "off_face_colours.off", "negative_indices.obj", "slashes.obj"),
    *("continued_lines.obj", "missing_mtl.obj", "mtl_path_traversal.obj", "non_ascii_object_name.obj"),
    *("latin1_object_name.obj", "name with spaces & (brackets) %41.off", "ply_list_of_floats.ply"),
)
CUBES = (
    *("trimesh_nancolor.obj", "trimesh_negative_indices.obj", "trimesh_jacked.obj", "trimesh_cube.OBJ"),
    *("assimp_box_longline.obj", "assimp_box_without_lineending.obj", "assimp_testmixed.obj"),
    *("assimp_cube_binary_header_with_RN_newline.ply", "assimp_cube_binary_starts_with_nl.ply"),
)
VOLUMES = {
    **dict.fromkeys(BRICKS, BRICK),
    **dict.fromkeys((f"real/{name}" for name in CUBES), CUBE),
    **dict.fromkeys(("ngons.obj", "ngons.off"), 0.553707),  # 0.262695 and an edge of 0.779931
    **dict.fromkeys(("real/trimesh_whitespace.off", "real/trimesh_comments.off"), CELL),
    "ngons_concave.obj": 0.375,
    "nested_same_winding.off": BALL,
    "nested_cavity.off": 0.442647,
    "nonmanifold_vertex.off": 0.25,
    "real/trimesh_two_objects_mixed_case_names.stl": 2 / 216,
}
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
    try:
        mesh = raw(row["file"])
        product = make_watertight(mesh, WatertightSettings(resolution=32, max_area=60))
    except Rejected as reason:
        assert not row["usable"].startswith("yes"), str(reason)
        assert re.search(REASONS[name], str(reason))
        return
    assert row["usable"] != "no"
    assert name not in REASONS
    canonical = scale_to_off(product.value, mesh, ScaleSettings()).value
    assert is_watertight(canonical)
    assert nonmanifold_vertices(canonical) == 0
    assert product.figures["d_in_mean"] < 0.02
    assert volume(canonical) == pytest.approx(product.figures["volume"], rel=0.3)
    if name in VOLUMES:
        assert volume(canonical) == pytest.approx(VOLUMES[name], rel=1e-4)


def test_the_reasons_are_of_files_that_there_are():
    assert set(REASONS) | set(VOLUMES) <= {row["file"].removeprefix("malformed/") for row in MALFORMED}


@pytest.mark.parametrize("row", manifest("manifest.csv"), ids=lambda row: row["file"])
def test_every_real_file_is_read_with_all_its_faces(row):
    mesh = raw(row["file"])
    assert len(mesh.faces) == int(row["faces"])


@pytest.mark.parametrize("name", SPHERES)
def test_spheres_spoiled_in_ways_that_can_be_undone_are_kept(name):
    product = make_watertight(raw(f"malformed/{name}"), WatertightSettings(chain=("keep",)))
    assert product.figures["volume"] == pytest.approx(BALL, rel=0.005)
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
