import json

import numpy as np
import pytest

from pipeline.arrays import Mesh, Rejected
from pipeline.geometry.clean import unwelded
from pipeline.geometry.measures import area, volume
from pipeline.geometry.quality import is_watertight
from tests import solids
from tests.meshes import files
from tests.meshes.files import bent_gltf, read
from tests.sources.reported import reported

BOXES = solids.three_boxes()
ALL_FORMATS = {
    "shape.obj": files.obj(BOXES),
    "shape.off": files.off(BOXES),
    "text.ply": files.ply(BOXES),
    "little.ply": files.ply(BOXES, "<"),
    "big.ply": files.ply(BOXES, ">"),
    "binary.stl": files.stl(BOXES),
    "text.stl": files.stl_text(BOXES),
    "shape.glb": files.glb(*files.gltf_document(BOXES)),
}
SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"


@pytest.mark.parametrize("name", ALL_FORMATS)
def test_three_boxes_come_back_from_every_format_triangle_by_triangle(name):
    product = read(ALL_FORMATS[name], name)
    np.testing.assert_allclose(product.value.triangles, BOXES.triangles, atol=2e-8)
    assert product.status == "ok"
    assert product.figures == {"format": name.split(".")[1], "vertices": 24, "faces": 36, "repairs": []}


@pytest.mark.parametrize("name", ["shape.obj", "shape.off", "text.ply", "little.ply", "big.ply"])
def test_coordinates_keep_float64(name):
    np.testing.assert_array_equal(read(ALL_FORMATS[name], name).value.vertices, BOXES.vertices)


@pytest.mark.parametrize("name", ALL_FORMATS)
def test_the_content_tells_the_format_whatever_the_name_says(name):
    for other in ("shape", "shape.off", "shape.OBJ", "shape.ply", "a b;$(c).stl", "shape.png"):
        assert read(ALL_FORMATS[name], other).figures["format"] == name.split(".")[1]


@pytest.mark.parametrize("name", ALL_FORMATS)
def test_a_file_cut_anywhere_is_refused_or_read_whole(name):
    content, whole = ALL_FORMATS[name], area(BOXES)
    last_line = content.rstrip().rfind(b"\n") + 1  # a last number that lost a digit is a number still
    for end in np.linspace(1, last_line if content.isascii() else len(content) - 1, 60).astype(int):
        try:
            mesh = read(content[:end], name).value
        except Rejected:
            continue
        # An OBJ announces nothing: cut between two faces, it is a smaller OBJ.
        assert name == "shape.obj" or area(mesh) == pytest.approx(whole)


@pytest.mark.parametrize("name", ALL_FORMATS)
def test_damaged_bytes_are_refused_or_read_but_never_an_error(name):
    rng = np.random.default_rng(len(name))
    for _ in range(120):
        spoiled = bytearray(ALL_FORMATS[name])
        for at in rng.integers(0, len(spoiled), rng.integers(1, 6)):
            spoiled[at] = rng.choice([rng.integers(256), 0x2D, 0x39, 0x0A, 0xFF])
        try:
            mesh = read(bytes(spoiled), name).value
        except Rejected as reason:
            assert str(reason)
            continue
        assert np.isfinite(mesh.vertices).all()
        assert mesh.faces.min() >= 0
        assert mesh.faces.max() < len(mesh.vertices)


@pytest.mark.parametrize("end", ["\r\n", "\r"])
@pytest.mark.parametrize("name", ["shape.obj", "shape.off", "text.stl"])
def test_line_ends_of_other_systems_are_read(name, end):
    content = ALL_FORMATS[name].decode().replace("\n", end)
    np.testing.assert_array_equal(read(content, name).value.triangles, read(ALL_FORMATS[name], name).value.triangles)


@pytest.mark.parametrize("name", ["shape.obj", "shape.off"])
def test_a_byte_order_mark_is_passed_over_and_utf16_is_named(name):
    text = ALL_FORMATS[name].decode()
    assert read(text.encode("utf-8-sig"), name).figures["faces"] == 36
    with pytest.raises(Rejected, match="UTF-16"):
        read(text.encode("utf-16"), name)


def test_unused_vertices_are_dropped_since_they_would_move_the_box():
    product = read("v 1000 0 0\n" + SQUARE + "v nan 0 0\nf 2 3 4 5\n")
    np.testing.assert_array_equal(product.value.bounds, [[0, 0, 0], [1, 1, 0]])
    assert product.status == "repaired"
    assert product.figures["repairs"] == ["vertices that no face uses: 2 dropped"]


def test_faces_without_area_are_dropped_where_they_would_move_the_box():
    product = read("v 1000 0 0\n" + SQUARE + "f 1 1 1\nf 2 3 4 5\nf 2 3 3\nf 1 2 3\n")
    np.testing.assert_array_equal(product.value.bounds, [[0, 0, 0], [1, 1, 0]])
    assert product.figures["repairs"] == ["faces without area beyond the surface: 2 dropped"]
    assert product.figures["faces"] == 3


def test_faces_of_two_corners_are_dropped_and_counted():
    product = read(SQUARE + "f 1 2\nf 1 2 3 4\n")
    assert product.figures["repairs"] == ["faces of fewer than three corners: 1 dropped"]
    assert product.figures["faces"] == 2


def test_corners_named_twice_in_a_row_are_dropped_and_counted():
    product = read(SQUARE + "f 1 1 2 3 4 4 1\nf 1 1 1 1\n")
    assert product.figures["repairs"] == [
        "corners named twice in a row: 7 dropped",
        "faces of fewer than three corners: 1 dropped",
    ]
    np.testing.assert_array_equal(product.value.faces, [[0, 1, 2], [0, 2, 3]])
    with pytest.raises(Rejected, match="no faces"):
        read(SQUARE + "f 1 1 1 1\nf 2 2 3 3\n")


def test_a_solid_whose_notch_is_named_twice_has_its_area():
    mesh = read(reported("L_dup3.obj")).value
    assert area(mesh) == pytest.approx(14)
    assert volume(mesh) == pytest.approx(3)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n\n", "empty"),
        ("# nothing\n", "no vertices|none of OBJ"),
        (SQUARE, "no faces"),
        (SQUARE + "f 1 2 5\n", "names vertex 5 of 4"),
        (SQUARE + "f 1 2 0\n", "vertex 0; OBJ counts from 1"),
        (SQUARE + "f 1 2 -5\n", "names vertex -5 of 4"),
        (SQUARE + "f 1 2 x\n", "'x' is not a valid index"),
        (SQUARE + "f 1 2 3.5\n", "not a valid index"),
        (SQUARE + "f 1 2 99999999999999999999999\n", "not a valid index"),
        (SQUARE + "f 1 2 3 4\nv 1 2\n", "2 coordinates instead of three"),
        (SQUARE.replace("1 1 0", "1,5 1 0") + "f 1 2 3\n", "decimal comma"),
        (SQUARE.replace("1 1 0", "inf 1 0") + "f 1 2 3\n", "NaN or infinite coordinates: 1"),
        (SQUARE + "f 1 2 2\n", "zero area"),
        ("v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n", "no extent"),
        (SQUARE + "f 1 2 3\nf\nf 1 3 4\n", "names no vertices"),
        (SQUARE + "f 1 2 3\nf 1", "ends inside a face"),
        (SQUARE + "f 1 2 3\nv 1 2", "ends inside a vertex"),
    ],
)
def test_an_obj_that_cannot_be_read_says_why(text, reason):
    with pytest.raises(Rejected, match=reason):
        read(text)


@pytest.mark.parametrize(
    "faces",
    [
        "f 1 2 3 4",
        "f 1/1 2/2 3/3 4/4",
        "f 1//7 2//7 3//7 4//7",
        "f 1/1/1 2//2 3/3 4",
        "f 1/ 2/ 3/ 4/",
        "f -4 -3 -2 -1",
        "f 1 2 \\\n 3 \\\n 4",
        "  f\t1  2\t3 4   # a comment",
        "g f 1 2 3\no C:\\\nf 1 2 3 4",
        "mtllib ../../../etc/passwd\nusemtl x\ns 1\nvn 0 0 1\nvt 0 0\nl 1 2\np 1\nf 1 2 3 4",
    ],
)
def test_every_way_to_write_a_square_in_obj_gives_two_triangles(faces):
    mesh = read(SQUARE + faces + "\n").value
    np.testing.assert_array_equal(mesh.faces, [[0, 1, 2], [0, 2, 3]])


def test_negative_indices_count_back_from_the_vertices_above_their_face():
    mesh = read("v 0 0 0\nv 1 0 0\nv 0 1 0\nf -3 -2 -1\nv 0 0 1\nv 1 0 1\nv 0 1 1\nf -3 -2 -1\n").value
    np.testing.assert_array_equal(mesh.faces, [[0, 1, 2], [3, 4, 5]])


def test_weights_and_colours_behind_coordinates_are_left_out():
    mesh = read("v 0 0 0 1\nv 2 0 0 0.1 0.2 nan\nv 0 3 0\nf 1 2 3\n").value
    np.testing.assert_array_equal(mesh.vertices, [[0, 0, 0], [2, 0, 0], [0, 3, 0]])


@pytest.mark.parametrize(
    "head",
    ["OFF\n4 1 0\n", "OFF 4 1 0\n", "OFF4 1 0\n", "# c\n\nOFF # c\n# c\n4 1\n", "4 1 0\n", "\ufeffOFF\n4 1 0\n"],
)
def test_every_way_to_begin_an_off_is_read(head):
    mesh = read(head + "0 0 0\n1 0 0 # c\n\n1 1 0\n0 1 0\n4 0 1 2 3 0.5 0.5 0.5\n", "shape.off").value
    np.testing.assert_array_equal(mesh.faces, [[0, 1, 2], [0, 2, 3]])


@pytest.mark.parametrize(("keyword", "more"), [("COFF", " 255 0 0 255"), ("NOFF", " 0 0 1"), ("STCNOFF", " 9" * 9)])
def test_colours_and_normals_of_off_vertices_are_left_out(keyword, more):
    text = f"{keyword}\n3 1 0\n0 0 0{more}\n1 0 0{more}\n0 1 0{more}\n3 0 1 2\n"
    np.testing.assert_array_equal(read(text, "shape.off").value.vertices, [[0, 0, 0], [1, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("OFF\n4000000000 1 0\n0 0 0\n", "announces 4000000000 vertices and 1 faces, more than .* bytes"),
        ("OFF\n3 2 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n", "announces 3 vertices and 2 faces, the file holds 3 and 1"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n3 0 1 2\n", "the file holds 3 and 2"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1\n", "announces 3 corners and names 2"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 -1\n", "names vertex -1 of 3"),
        ("OFF\n-3 1 0\n0 0 0\n", "announces -3 vertices"),
        ("OFF\n", "no counts"),
        ("4OFF\n1 1 0\n0 0 0 1\n1 0\n", "three coordinates"),
        ("OFF BINARY\n\x00\x00", "binary"),
        ("0 0 0\n1 1 1\n", "holds no vertices|the file holds"),
    ],
)
def test_an_off_that_cannot_be_read_says_why(text, reason):
    with pytest.raises(Rejected, match=reason):
        read(text, "shape.off")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (files.ply(BOXES, "<")[:-1], "announces 24 vertices and 36 faces, more than|cut off"),
        (files.ply(BOXES).replace(b"end_header", b"end_heade"), "no end_header"),
        (files.ply(BOXES).replace(b"vertex 24", b"vertex 99999999999999"), "more than .* bytes"),
        (files.ply(BOXES, "<").replace(b"face 36", b"face 9999999999"), "more than .* bytes"),
        (files.ply(BOXES).replace(b"property double z", b"property double w"), "no coordinate z"),
        (files.ply(BOXES).replace(b"vertex_indices", b"flags"), "no list of vertex indices"),
        (files.ply(BOXES).replace(b"element face 36", b"element tristrips 36"), "triangle strips"),
        (files.ply(BOXES).replace(b"double x", b"\x00\x01 x"), "not understood"),
        (files.ply(BOXES).replace(b"ascii", b"utf8"), "not understood"),
        (files.ply(BOXES, list_types="uchar float").replace(b"3 0 1 3", b"3 0.5 1 3"), "not whole"),
        (
            files.ply(BOXES, list_types="float int").replace(b"\n3 0 1 3", b"\n2.5 0 1 3"),
            "2.5 items, which is no count",
        ),
        (
            files.ply(BOXES, list_types="float int").replace(b"\n3 0 1 3", b"\nnan 0 1 3"),
            "nan items, which is no count",
        ),
        (files.ply(BOXES, list_types="char int").replace(b"\n3 0 1 3", b"\n-3 0 1 3"), "-3.0 items, which is no count"),
    ],
)
def test_a_ply_that_cannot_be_read_says_why(content, reason):
    with pytest.raises(Rejected, match=reason):
        read(content, "shape.ply")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (files.stl(BOXES)[:-7], "announces 36 facets, the file holds 35"),
        (files.stl(BOXES) + bytes(100), "announces 36 facets, the file holds 38"),
        (files.stl(BOXES, header=b"part")[:60], "too few"),
        (files.stl_text(BOXES)[:-12], "cut off"),
        (files.stl_text(BOXES).replace(b"vertex", b"vertez", 1), "107 vertices instead of three each"),
        (files.stl_text(BOXES).replace(b"vertex", b"vertex 7", 1), "4 coordinates instead of three"),
    ],
)
def test_an_stl_that_cannot_be_read_says_why(content, reason):
    with pytest.raises(Rejected, match=reason):
        read(content, "shape.stl")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(200), "a PNG image"),
        (b"PK\x03\x04" + bytes(200), "a zip archive"),
        (b"<?xml version='1.0'?><COLLADA/>", "XML"),
        (bytes(range(256)) * 3, "binary|none of|end_header|facets"),
        (b"to whom it may concern\n", "none of|no vertices|no counts|not a valid|end_header|too few"),
    ],
)
@pytest.mark.parametrize("name", ["shape", "shape.ply", "shape.stl", "shape.obj", "shape.off"])
def test_a_file_of_another_kind_is_refused_whatever_its_name(content, reason, name):
    with pytest.raises(Rejected, match=reason):
        read(content, name)


def test_a_ply_of_triangles_quads_and_more_elements_is_read_in_text_and_binary():
    header = "ply\nformat {} 1.0\nelement vertex 4\nproperty uchar red\nproperty float x\nproperty float y\n"
    header += "property float z\nelement edge 1\nproperty int a\nelement face 2\nproperty float q\n"
    header += "property list uchar uint vertex_index\nproperty list uchar float t\nend_header\n"
    text = "9 0 0 0\n9 1 0 0\n9 1 1 0\n9 0 1 0\n7\n0.5 4 0 1 2 3 0\n0.5 3 0 1 3 2 8 8\n"
    points = np.zeros(4, [("red", "u1"), ("p", ">f4", 3)])
    points["p"] = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)]
    one, quad, tri = np.array(0.5, ">f4").tobytes(), np.arange(4, dtype=">u4"), np.array([0, 1, 3], ">u4")
    binary = points.tobytes() + np.array(7, ">i4").tobytes() + one + b"\4" + quad.tobytes() + b"\0"
    binary += one + b"\3" + tri.tobytes() + b"\2" + bytes(8)
    for content in (header.format("ascii") + text, header.format("binary_big_endian").encode() + binary):
        mesh = read(content, "shape.ply").value
        np.testing.assert_array_equal(mesh.vertices, [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
        np.testing.assert_array_equal(mesh.faces, [[0, 1, 2], [0, 2, 3], [0, 1, 3]])


def test_facets_of_an_stl_share_their_vertices_also_when_the_header_begins_with_solid():
    product = read(files.stl(unwelded(BOXES), header=b"solid but binary facet"), "shape.stl")
    assert product.figures["vertices"] == 24
    assert is_watertight(product.value)


def test_gltf_transforms_are_applied_from_parent_to_child_and_mirrors_turn_faces():
    half = float(np.sqrt(0.5))
    nodes = [
        {"translation": [10, 0, 0], "rotation": [0, 0, half, half], "children": [1, 2]},  # a quarter turn about z
        {"mesh": 0, "scale": [2, 2, 2]},
        {"mesh": 0, "matrix": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, -1, 0, 0, 0, 5, 1]},  # mirrored in z, moved up
    ]
    mesh = read(files.glb(*files.gltf_document(BOXES, nodes)), "shape.glb").value
    x, y, z = BOXES.vertices.T
    first = np.stack([10 - 2 * y, 2 * x, 2 * z], axis=1)
    second = np.stack([10 - y, x, 5 - z], axis=1)
    np.testing.assert_allclose(mesh.vertices, np.concatenate([first, second]), atol=1e-6)
    assert volume(mesh) == pytest.approx(9 * solids.three_boxes_volume())


def test_a_gltf_takes_its_buffer_from_beside_it_by_name_and_from_nowhere_else():
    document, buffer = files.gltf_document(BOXES)
    for uri in ("my%20data.bin", "https://example.org/data.bin", "/etc/hostname", "../data.bin"):
        document["buffers"][0]["uri"] = uri
        with pytest.raises(Rejected, match=r"another file.*which is not there"):
            read(json.dumps(document), "shape.gltf")
    document["buffers"][0]["uri"] = "my%20data.bin"
    assert read(json.dumps(document), "shape.gltf", {"my data.bin": buffer}).figures["faces"] == 36


def test_gltf_strips_and_fans_become_triangles_of_one_winding():
    grid = Mesh([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 2, 0], [1, 2, 0]], [[0, 1, 2], [3, 4, 5]])
    document, buffer = files.gltf_document(grid)
    document["meshes"][0]["primitives"][0]["mode"] = 5
    strip = read(files.glb(document, buffer), "shape.glb").value
    np.testing.assert_array_equal(strip.faces, [[0, 1, 2], [1, 3, 2], [2, 3, 4], [3, 5, 4]])
    document["meshes"][0]["primitives"][0]["mode"] = 6
    assert len(read(files.glb(document, buffer), "shape.glb").value.faces) == 4


def skinned_boxes() -> tuple[dict, bytes]:
    """Three boxes: the first eight vertices hang on a joint at x = 5, the others halfway on it and on one at x = 1."""
    nodes = [
        {"children": [1, 2, 3]},
        {"mesh": 0, "skin": 0, "translation": [100, 100, 100]},  # of no meaning for a skin
        {"translation": [5, 0, 0]},
        {"translation": [1, 0, 0]},
    ]
    document, buffer = files.gltf_document(BOXES, nodes)
    document["skins"] = [{"joints": [2, 3]}]
    joints = np.tile(np.array([0, 1, 0, 0], "u1"), (24, 1))
    weights = np.where(np.arange(24)[:, None] < 8, [1, 0, 0, 0], [0.5, 0.5, 0, 0]).astype("<f4")
    bind = np.stack([np.eye(4), np.eye(4)]).astype("<f4")
    bind[:, 3, 1] = -2  # column-major: the joints stood at y = 2 when the skin was bound
    more = {"JOINTS_0": (joints, 5121, "VEC4"), "WEIGHTS_0": (weights, 5126, "VEC4"), "BIND": (bind, 5126, "MAT4")}
    return bent_gltf(document, buffer, more)


def test_a_gltf_skin_stands_where_its_joints_hold_it():
    mesh = read(files.glb(*skinned_boxes()), "shape.glb").value
    moved = np.where(np.arange(24)[:, None] < 8, [5, -2, 0], [3, -2, 0])
    np.testing.assert_allclose(mesh.vertices, BOXES.vertices + moved, atol=1e-6)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda d: d["accessors"][2].update(count=23), "23 values for 24 vertices"),
        (lambda d: d["skins"][0].update(joints=[2]), "damaged"),
        (lambda d: d["skins"][0].update(joints=[2, 9]), "damaged"),
        (lambda d: d["nodes"][0].update(children=[1, 2]), "damaged"),
        (lambda d: d["meshes"][0]["primitives"][0]["attributes"].pop("JOINTS_0"), "hangs on no joint"),
        (lambda d: d["accessors"][3].update(byteOffset=10**9), "beyond its buffer"),
    ],
)
def test_a_gltf_skin_that_contradicts_itself_says_why(spoil, reason):
    document, buffer = skinned_boxes()
    spoil(document)
    with pytest.raises(Rejected, match=reason):
        read(files.glb(document, buffer), "shape.glb")


def test_gltf_morph_targets_are_applied_by_the_weights_in_the_file():
    document, buffer = files.gltf_document(BOXES)
    shift = np.tile(np.array([0, 8, 0], "<f4"), (24, 1))
    document, buffer = bent_gltf(document, buffer, {"SHIFT": (shift, 5126, "VEC3")})
    primitive = document["meshes"][0]["primitives"][0]
    primitive["targets"] = [{"POSITION": primitive["attributes"].pop("SHIFT")}]
    assert read(files.glb(document, buffer), "shape.glb").value.vertices == pytest.approx(BOXES.vertices, abs=1e-6)
    document["meshes"][0]["weights"] = [0.25]
    moved = read(files.glb(document, buffer), "shape.glb").value
    np.testing.assert_allclose(moved.vertices, BOXES.vertices + np.array([0, 2, 0]), atol=1e-6)


def spoiled_gltf(spoil) -> bytes:
    document, buffer = files.gltf_document(BOXES, [{"mesh": 0, "children": [1]}, {"mesh": 0}])
    spoil(document)
    return files.glb(document, buffer)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda d: d["accessors"][0].update(count=10**12), "beyond its buffer"),
        (lambda d: d["accessors"][0].update(count=-1), "beyond its buffer"),
        (lambda d: d["accessors"][0].update(byteOffset=-12), "beyond its buffer"),
        (lambda d: d["bufferViews"][0].update(byteStride=0) or d["accessors"][0].update(count=10**9), "limit"),
        (lambda d: d["bufferViews"][0].update(byteOffset=600), "beyond its buffer"),
        (lambda d: d["accessors"][0].pop("bufferView"), "sparse or empty"),
        (lambda d: d["accessors"][0].update(componentType=1), "damaged"),
        (lambda d: d["meshes"][0]["primitives"][0].update(indices=0), "VEC3.*SCALAR is needed"),
        (lambda d: d["nodes"][1].update(children=[0]), "not a tree"),
        (lambda d: d["nodes"][1].update(children=[7]), "damaged"),
        (lambda d: d["nodes"][1].update(mesh="x"), "damaged"),
        (lambda d: d.update(extensionsRequired=["KHR_draco_mesh_compression"]), "compressed"),
        (lambda d: d.update(meshes=[]), "damaged"),
        (lambda d: d["nodes"][0].update(extensions={"EXT_mesh_gpu_instancing": {}}), "in many places"),
    ],
)
def test_a_gltf_that_contradicts_itself_says_why(spoil, reason):
    with pytest.raises(Rejected, match=reason):
        read(spoiled_gltf(spoil), "shape.glb")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (SQUARE.replace("1 1 0", "1_0 1 0") + "f 1 2 3\n", "shape.obj"),
        (SQUARE + "f 1 2 1_0\n", "shape.obj"),
        ("OFF\n3 1 0\n1_0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n", "shape.off"),
        ("OFF\n3 1_0 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n", "shape.off"),
        ("OFF\n3 1 0 0 0 0 1 0 0 0 1_0 0 3 0 1 2\n", "shape.off"),
        (files.ply(BOXES).replace(b"\n3 0 1 3\n", b"\n3 0 1_0 3\n"), "shape.ply"),
        (files.ply(BOXES).replace(b"vertex 24", b"vertex 2_4"), "shape.ply"),
        (files.stl_text(BOXES).replace(b"vertex ", b"vertex 1_", 1), "shape.stl"),
    ],
)
def test_underscores_which_python_allows_in_numbers_are_in_none(text, name):
    with pytest.raises(Rejected, match=r"_.* is not a valid|not understood|the header announces"):
        read(text, name)


@pytest.mark.parametrize("name", ALL_FORMATS)
@pytest.mark.parametrize("limit", [{"max_bytes": 300}, {"max_vertices": 23}, {"max_faces": 35}])
def test_limits_are_kept_for_every_format(name, limit):
    with pytest.raises(Rejected, match="limit"):
        read(ALL_FORMATS[name], name, **limit)


def test_polygons_that_make_too_many_triangles_are_refused():
    with pytest.raises(Rejected, match="3 triangles; the limit is 2"):
        read(SQUARE + "v 0.5 2 0\nf 1 2 3 5 4\n", max_faces=2)
