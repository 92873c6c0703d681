"""glTF as people write it: what the specification allows is read, what contradicts it is refused in its own words."""

import copy
import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pipeline.arrays import Mesh, Rejected
from tests import solids
from tests.meshes import files
from tests.meshes.files import bent_gltf, read
from tests.sources.reported import reported

TETRAHEDRON = Mesh([[0, 0, 0], [2, 0, 0], [0, 3, 0], [0, 0, 4]], [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
BOXES = solids.three_boxes()
FLOAT, BYTE, SHORT = 5126, 5121, 5123


def placed() -> tuple[dict, bytes]:
    """Two tetrahedra below a node that is turned, one of them by a matrix."""
    nodes = [
        {"translation": [1, 2, 3], "rotation": [0, 0, 0, 1], "scale": [1, 1, 1], "children": [1, 2]},
        {"mesh": 0},
        {"mesh": 0, "matrix": np.eye(4).ravel().tolist(), "extensions": {"VENDOR_anything": {}}},
    ]
    document, buffer = files.gltf_document(TETRAHEDRON, nodes)
    document["scene"] = 0
    document["extensionsUsed"] = ["VENDOR_anything"]
    return document, buffer


def skinned(joints=((0, 0, 0, 0),) * 4, weights=((1, 0, 0, 0),) * 4) -> tuple[dict, bytes]:
    """A tetrahedron on two joints, at x = 5 and at x = 1."""
    nodes = [{"children": [1, 2, 3]}, {"mesh": 0, "skin": 0}, {"translation": [5, 0, 0]}, {"translation": [1, 0, 0]}]
    document, buffer = files.gltf_document(TETRAHEDRON, nodes)
    document["skins"] = [{"joints": [2, 3]}]
    more = {
        "JOINTS_0": (np.array(joints, "u1"), BYTE, "VEC4"),
        "WEIGHTS_0": (np.array(weights, "<f4"), FLOAT, "VEC4"),
        "BIND": (np.stack([np.eye(4), np.eye(4)]).astype("<f4"), FLOAT, "MAT4"),
    }
    return bent_gltf(document, buffer, more)


def morphed() -> tuple[dict, bytes]:
    """A tetrahedron whose morph target moves its last vertex up by 8, written as sparse values."""
    document, buffer = files.gltf_document(TETRAHEDRON)
    document, buffer = with_sparse(document, buffer, None, [3], [[0, 0, 8]])
    primitive = document["meshes"][0]["primitives"][0]
    primitive["targets"] = [{"POSITION": len(document["accessors"]) - 1}]
    document["meshes"][0]["weights"] = [0.25]
    return document, buffer


def with_sparse(document: dict, buffer: bytes, accessor: int | None, rows, values) -> tuple[dict, bytes]:
    """The document with sparse values for an accessor of points; for None a new one of zeros is made."""
    parts = {"indices": np.array(rows, "<u2"), "values": np.array(values, "<f4")}
    sparse: dict[str, Any] = {"count": len(rows)}
    for name, array in parts.items():
        buffer = buffer.ljust(-(-len(buffer) // 4) * 4, b"\0")
        document["bufferViews"].append({"buffer": 0, "byteOffset": len(buffer), "byteLength": array.nbytes})
        sparse[name] = {"bufferView": len(document["bufferViews"]) - 1}
        buffer += array.tobytes()
    sparse["indices"]["componentType"] = SHORT
    if accessor is None:
        document["accessors"].append({"componentType": FLOAT, "count": 4, "type": "VEC3"})
        accessor = -1
    document["accessors"][accessor]["sparse"] = sparse
    return document, buffer


def beside() -> tuple[dict, bytes]:
    """A tetrahedron whose buffer has a name, and a second buffer that is written into the document."""
    document, buffer = files.gltf_document(TETRAHEDRON)
    half = document["bufferViews"][1]["byteOffset"]
    document["buffers"] = [
        {"byteLength": half, "uri": "points.bin"},
        {
            "byteLength": len(buffer) - half,
            "uri": "data:application/octet-stream;base64,AAACAAEAAAABAAMAAAADAAIAAQACAAMA",
        },
    ]
    document["bufferViews"][1] |= {"buffer": 1, "byteOffset": 0}
    return document, buffer


def read_document(document: dict, buffer: bytes, **limits):
    """Read as GLB, or, where the first buffer has a name, as JSON with the buffer beside it."""
    buffers = document.get("buffers")
    first = buffers[0] if isinstance(buffers, list) and buffers else None
    uri = first.get("uri") if isinstance(first, dict) else None
    if isinstance(uri, str):
        return read(json.dumps(document), "shape.gltf", {"points.bin": buffer}, **limits)
    return read(files.glb(document, buffer), "shape.glb", **limits)


DOCUMENTS = {"placed": placed, "skinned": skinned, "morphed": morphed, "beside": beside}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_that_are_spoiled_below_are_read_as_they_are(name):
    document, buffer = DOCUMENTS[name]()
    assert read_document(document, buffer).figures["faces"] == (8 if name == "placed" else 4)


def places(value: Any, above: tuple = ()) -> Iterator[tuple]:
    """The way to every key and list item of a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        yield (*above, key)
        yield from places(below, (*above, key))


OTHERS = (None, True, -1, 7, 2**70, 1.5, float("nan"), "", "ä/../x", "\ud800", [], [0], [[]], {}, {"a": 0})


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_key_deleted_or_altered_is_read_or_refused_in_words(name):
    document, buffer = DOCUMENTS[name]()
    for *way, last in places(document):
        spoiled = copy.deepcopy(document)
        owner = spoiled
        for key in way:
            owner = owner[key]
        kept = owner.pop(last)
        check_spoiled(spoiled, buffer)
        if isinstance(owner, list):
            owner.insert(last, kept)
        for other in OTHERS:
            owner[last] = other
            check_spoiled(spoiled, buffer)


def check_spoiled(document: dict, buffer: bytes) -> None:
    try:
        mesh = read_document(document, buffer).value
    except Rejected as reason:
        assert "Error" not in str(reason)
        assert str(reason).isprintable()
        return
    assert np.isfinite(mesh.vertices).all()


@pytest.mark.parametrize(
    ("make", "spoil", "reason"),
    [
        (placed, lambda d: d["asset"].update(version="1.0"), "glTF of version '1.0'; version 2 is read"),
        (placed, lambda d: d.update(meshes={"mesh": d["meshes"][0]}), "glTF of version '1.0'; version 2 is read"),
        (placed, lambda d: d["nodes"][0].update(children=[1, 9]), "node 0 names node 9 of 3"),
        (placed, lambda d: d["nodes"][1].update(mesh=4), "node 1 names mesh 4 of 1"),
        (placed, lambda d: d.update(scene=2), "the file names scene 2 of 1"),
        (placed, lambda d: d["nodes"][2].update(matrix=[1] * 15), "node 2 has a matrix of 15 numbers instead of 16"),
        (placed, lambda d: d["nodes"][0].update(scale="1 1 1"), "node 0 has '1 1 1' for scale where a list"),
        (placed, lambda d: d["accessors"][0].update(componentType=5124), "accessor 0 has the componentType 5124"),
        (placed, lambda d: d["accessors"][1].update(bufferView=5), "accessor 1 names bufferView 5 of 2"),
        (placed, lambda d: d["bufferViews"][0].update(byteStride=8), "byteStride of 8, less than the 12 bytes"),
        (placed, lambda d: attributes(d).pop("POSITION"), "primitive 0 of mesh 0 has no POSITION"),
        (placed, lambda d: attributes(d).update(POSITION=9), "primitive 0 of mesh 0 names accessor 9 of 2"),
        (skinned, lambda d: d["skins"][0].update(joints=[2, 9]), "skin 0 names node 9 as a joint.* not in the scene"),
        (skinned, lambda d: d["nodes"][0].update(children=[1, 2]), "node 3 as a joint, which is not in the scene"),
        (skinned, lambda d: d["skins"][0].update(joints=[]), "skin 0 has no joints"),
        (skinned, lambda d: d["skins"][0]["joints"].append(0), "2 inverseBindMatrices for 3 joints"),
        (skinned, lambda d: attributes(d).pop("WEIGHTS_0"), "primitive 0 of mesh 0 has no WEIGHTS_0"),
        (skinned, lambda d: attributes(d).update(JOINTS_0=3), "JOINTS_0 of primitive 0 of mesh 0 holds fractions"),
        (skinned, lambda d: attributes(d).update(JOINTS_0=5), "primitive 0 of mesh 0 names accessor 5 of 5"),
        (morphed, lambda d: sparse(d).update(count=5), "accessor 2 replaces 5 values of 4"),
        (morphed, lambda d: sparse(d)["indices"].update(componentType=5122), "sparse indices of a componentType"),
        (morphed, lambda d: sparse(d)["values"].update(byteOffset=8), "reaches beyond its buffer: accessor 2"),
        (morphed, lambda d: d["accessors"][2].update(count=10**12), "announces 1000000000000 vertices; the limit"),
        (beside, lambda d: d["buffers"][1].update(uri="data:;base64,AAA"), "uri of buffer 1 are not base64"),
        (beside, lambda d: d["buffers"][1].pop("uri"), "buffer 1 has no uri; only buffer 0 may be the binary chunk"),
        (beside, lambda d: d["buffers"][0].update(uri="ü.bin"), "another file, 'ü.bin', which is not there"),
    ],
)
def test_what_contradicts_the_format_is_named_in_its_words(make, spoil, reason):
    document, buffer = make()
    spoil(document)
    with pytest.raises(Rejected, match=reason):
        read_document(document, buffer)


def attributes(document: dict) -> dict:
    return document["meshes"][0]["primitives"][0]["attributes"]


def sparse(document: dict) -> dict:
    return document["accessors"][2]["sparse"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"asset": ', "its JSON cannot be read: Expecting value"),
        (b'{"asset": "\xff"}', "its JSON is not UTF-8"),
        (b'{"asset": ' + b"[" * 100_000, "its JSON is nested too deeply"),
        (b'["asset"]', "its JSON is a list instead of an object"),
        (b'{"asset": {"version": "2.0"}, "scene": ' + b"9" * 5000 + b"}", "its JSON cannot be read"),
        (b'{"asset": {"version": "1.0"}, "meshes": {}}', "glTF of version '1.0'"),
        (b'{"asset": {"version": "2.0"}}', "no vertices"),
        (json.dumps(files.gltf_document(TETRAHEDRON)[0]).encode(), "buffer 0 has no uri, and the file has no binary"),
    ],
)
def test_a_json_that_is_no_mesh_says_why(text, reason):
    with pytest.raises(Rejected, match=reason):
        read(text, "shape.gltf")


@pytest.mark.parametrize(
    "extension",
    [
        *("KHR_draco_mesh_compression", "KHR_meshopt_compression", "EXT_meshopt_compression"),
        *("EXT_mesh_gpu_instancing", "VENDOR_shapes", "KHR_mesh_quantization_2"),
    ],
)
def test_required_extensions_that_are_not_understood_are_refused_by_name(extension):
    document, buffer = placed()
    document["extensionsUsed"] = [extension]
    assert read_document(document, buffer).figures["faces"] == 8
    document["extensionsRequired"] = ["KHR_materials_unlit", extension]
    with pytest.raises(Rejected, match=extension):
        read_document(document, buffer)


@pytest.mark.parametrize(
    "extension", ["KHR_mesh_quantization", "KHR_materials_unlit", "KHR_texture_transform", "EXT_texture_webp"]
)
def test_required_extensions_that_leave_the_shape_alone_are_no_obstacle(extension):
    document, buffer = placed()
    document["extensionsRequired"] = [extension]
    assert read_document(document, buffer).figures["faces"] == 8


def test_quantized_coordinates_are_the_numbers_or_the_fractions_they_stand_for():
    points = (TETRAHEDRON.vertices * 1000).astype("<i2")
    document, buffer = files.gltf_document(TETRAHEDRON)
    document["bufferViews"].append({"buffer": 0, "byteOffset": len(buffer), "byteLength": points.nbytes})
    document["accessors"][0] |= {"bufferView": 2, "componentType": 5122}
    whole = read_document(document, buffer + points.tobytes()).value
    np.testing.assert_array_equal(whole.vertices, TETRAHEDRON.vertices * 1000)
    document["accessors"][0]["normalized"] = True
    fractions = read_document(document, buffer + points.tobytes()).value
    np.testing.assert_allclose(fractions.vertices, TETRAHEDRON.vertices * 1000 / 32767)


def test_only_the_first_buffer_may_be_the_binary_chunk():
    document, buffer = files.gltf_document(TETRAHEDRON)
    document["buffers"].append({"byteLength": len(buffer)})
    assert read_document(document, buffer).figures["faces"] == 4
    document["bufferViews"][0]["buffer"] = 1
    with pytest.raises(Rejected, match="buffer 1 has no uri; only buffer 0 may be the binary chunk of a GLB"):
        read_document(document, buffer)


@pytest.mark.parametrize("uri", ["my data ü.bin", "my%20data%20%C3%BC.bin", "my%20data ü.bin"])
@pytest.mark.parametrize("encoded", [False, True])
def test_companions_are_found_by_the_uri_as_written_and_as_meant(uri, encoded):
    document, buffer = files.gltf_document(TETRAHEDRON)
    document["buffers"][0]["uri"] = uri
    name = uri if encoded else "my data ü.bin"
    product = read(json.dumps(document), "shape.gltf", {name: buffer, "other.bin": bytes(len(buffer))})
    assert product.figures["faces"] == 4


@pytest.mark.parametrize("write", [lambda text: text, lambda text: text.replace(",", "%2C").replace("A", "%41")])
def test_data_in_the_document_are_read_in_base64_and_percent_encoded(write):
    document, buffer = files.gltf_document(TETRAHEDRON)
    half = document["bufferViews"][1]["byteOffset"]
    document["buffers"] = [{"byteLength": len(buffer)}]
    document["buffers"][0]["uri"] = "data:," + "".join(f"%{byte:02X}" for byte in buffer)
    assert read(json.dumps(document), "shape.gltf").figures["faces"] == 4
    document, _ = beside()
    head, _, text = document["buffers"][1]["uri"].partition(",")
    document["buffers"][1]["uri"] = f"{head},{write(text)}"
    assert read(json.dumps(document), "shape.gltf", {"points.bin": buffer[:half]}).figures["faces"] == 4


def test_sparse_values_replace_those_of_the_buffer():
    document, buffer = with_sparse(*files.gltf_document(TETRAHEDRON), 0, [1, 3], [[20, 0, 0], [0, 0, 40]])
    mesh = read_document(document, buffer).value
    np.testing.assert_array_equal(mesh.vertices, [[0, 0, 0], [20, 0, 0], [0, 3, 0], [0, 0, 40]])


def test_sparse_values_without_others_stand_among_zeros():
    document, buffer = files.gltf_document(TETRAHEDRON)
    del document["accessors"][0]["bufferView"]
    document, buffer = with_sparse(document, buffer, 0, [1, 2, 3], TETRAHEDRON.vertices[1:])
    np.testing.assert_array_equal(read_document(document, buffer).value.vertices, TETRAHEDRON.vertices)


def test_sparse_indices_are_read_too():
    document, buffer = files.gltf_document(TETRAHEDRON)
    wrong = Mesh(TETRAHEDRON.vertices, [[0, 0, 0], *TETRAHEDRON.faces[1:]])
    document, buffer = files.gltf_document(wrong)
    rows, values = np.array([1, 2], "<u2"), np.array([2, 1], "<u2")
    views = document["bufferViews"]
    buffer += rows.tobytes() + values.tobytes()
    views += [{"buffer": 0, "byteOffset": len(buffer) - 8, "byteLength": 4}]
    views += [{"buffer": 0, "byteOffset": len(buffer) - 4, "byteLength": 4}]
    document["accessors"][1]["sparse"] = {
        "count": 2,
        "indices": {"bufferView": 2, "componentType": SHORT},
        "values": {"bufferView": 3},
    }
    np.testing.assert_array_equal(read_document(document, buffer).value.faces, TETRAHEDRON.faces)


def test_a_sparse_index_beyond_its_accessor_is_refused():
    document, buffer = with_sparse(*files.gltf_document(TETRAHEDRON), 0, [1, 4], [[1, 1, 1]] * 2)
    with pytest.raises(Rejected, match="accessor 0 replaces value 4 of 4"):
        read_document(document, buffer)


def test_morph_targets_may_be_sparse_or_nothing_but_zeros():
    document, buffer = morphed()
    moved = TETRAHEDRON.vertices + np.outer([0, 0, 0, 1], [0, 0, 2])
    np.testing.assert_array_equal(read_document(document, buffer).value.vertices, moved)
    del document["accessors"][2]["sparse"]
    np.testing.assert_array_equal(read_document(document, buffer).value.vertices, TETRAHEDRON.vertices)


def test_geometry_without_values_that_is_compressed_says_so():
    document, buffer = files.gltf_document(TETRAHEDRON)
    del document["accessors"][0]["bufferView"]
    document["extensionsUsed"] = ["KHR_draco_mesh_compression"]
    with pytest.raises(Rejected, match="compressed with KHR_draco_mesh_compression"):
        read_document(document, buffer)


def test_a_vertex_without_weights_hangs_on_its_first_joint():
    joints = [[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]]
    weights = [[1, 0, 0, 0], [0, 0, 0, 0], [0.5, 0, 0, 0], [0, 0, 0, 0]]
    mesh = read_document(*skinned(joints, weights)).value
    moved = np.array([[5, 0, 0], [1, 0, 0], [1, 0, 0], [5, 0, 0]])
    np.testing.assert_allclose(mesh.vertices, TETRAHEDRON.vertices + moved)


def test_weights_below_nothing_are_refused():
    with pytest.raises(Rejected, match="hangs on no joint"):
        read_document(*skinned(weights=[[1, 0, 0, 0], [-1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]))


@pytest.mark.parametrize("padding", [b"\0" * 3, b" \0\0", b"\n\0 \0"[:3], b"   "])
@pytest.mark.parametrize("behind", [b"", b"\0" * 64])
def test_a_glb_padded_with_nulls_is_read(padding, behind):
    document, buffer = placed()
    text = json.dumps(document).encode()
    text += padding + padding[-1:] * (-(len(text) + 3) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(buffer), b"BIN\0") + buffer
    content = b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks + behind
    assert read(content, "shape.glb").figures["faces"] == 8


def test_a_glb_without_json_or_of_version_1_says_so():
    chunk = struct.pack("<I4s", 4, b"BIN\0") + bytes(4)
    with pytest.raises(Rejected, match="the GLB has no JSON chunk"):
        read(b"glTF" + struct.pack("<II", 2, 12 + len(chunk)) + chunk, "shape.glb")
    with pytest.raises(Rejected, match="GLB of version 1; version 2 is read"):
        read(b"glTF" + struct.pack("<III", 1, 20, 0), "shape.glb")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("khr_meshopt_garbage.glb", "compressed with KHR_meshopt_compression"),
        ("khr_meshopt_required.glb", "compressed with KHR_meshopt_compression"),
        ("inner.gltf", "another file, 'buffers/box.bin', which is not there"),
    ],
)
def test_reported_files_that_cannot_be_read_say_why(name, reason):
    with pytest.raises(Rejected, match=reason):
        read(reported(name), name)


@pytest.mark.parametrize("name", ["glb_json_zero_pad_2.glb", "skin_zero_weights.glb"])
def test_reported_files_are_read_whole(name):
    product = read(reported(name), name)
    assert (product.figures["vertices"], product.figures["faces"]) == (8, 12)
    np.testing.assert_array_equal(product.value.bounds, [[0, 0, 0], [1, 2, 3]])
