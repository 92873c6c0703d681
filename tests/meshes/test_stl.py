"""STL as people write it: headers that look like another format, and other spellings of an end."""

import numpy as np
import pytest

from pipeline.arrays import Rejected
from pipeline.sources.formats import HEAD_BYTES, sniff
from tests import solids
from tests.meshes import files
from tests.meshes.files import read
from tests.sources.reported import reported

BOXES = solids.three_boxes()
TEXT = files.stl_text(BOXES)
HEADERS = {
    "ply": b"ply\nformat ascii 1.0\n",
    "OFF": b"OFF\n3 1 0\n",
    "NCOFF": b"NCOFF",
    "OBJ": b"v 0 0 0\nf 1 2 3\n",
    "GLB": b"glTF\x02\0\0\0",
    "glTF": b'{"asset": {"version": "2.0"}}',
    "text STL": b"solid part\nfacet normal 0 0 0\n",
    "PNG": b"\x89PNG\r\n",
    "zip": b"PK\x03\x04",
    "gzip": b"\x1f\x8b",
    "XML": b"<mesh>",
    "FBX": b"Kaydara FBX",
    "UTF-8": b"\xef\xbb\xbf",
    "UTF-16": b"\xff\xfe",
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("file", ["shape.stl", "shape", "shape.ply", "shape.obj"])
def test_a_header_that_begins_like_another_format_is_no_format(name, file):
    content = files.stl(BOXES, header=HEADERS[name])
    product = read(content, file)
    assert product.figures["format"] == "stl"
    np.testing.assert_allclose(product.value.triangles, BOXES.triangles, atol=2e-8)
    assert sniff(content[:HEAD_BYTES], len(content))


@pytest.mark.parametrize("name", ["OFF", "NCOFF", "OBJ", "glTF"])
def test_one_of_those_that_was_cut_off_is_refused_as_stl(name):
    with pytest.raises(Rejected, match="announces 36 facets, the file holds 35"):
        read(files.stl(BOXES, header=HEADERS[name])[:-7], "shape.stl")


@pytest.mark.parametrize("end", ["end solid", "END SOLID part", "End\tSolid", "EndSolid"])
@pytest.mark.parametrize("facet", ["endfacet", "end facet"])
def test_ends_in_two_words_are_read(end, facet):
    text = TEXT.decode().replace("endsolid", end).replace("endfacet", facet).replace("endloop", "end loop")
    product = read(text, "shape.stl")
    assert product.figures["faces"] == len(BOXES.faces)
    with pytest.raises(Rejected, match="cut off"):
        read(text[: text.lower().rindex("end")], "shape.stl")


def test_an_empty_solid_with_an_end_in_two_words_is_known_as_stl():
    with pytest.raises(Rejected, match="no vertices"):
        read("solid nothing\nend solid nothing\n", "without_suffix")


def test_the_reported_file_is_read_whole():
    product = read(reported("stl_end_solid.stl"), "shape.stl")
    assert product.figures == {"format": "stl", "vertices": 8, "faces": 12, "repairs": []}
