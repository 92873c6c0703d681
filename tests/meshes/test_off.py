"""OFF as people write it: every prefix of the keyword, and line breaks anywhere."""

import itertools

import numpy as np
import pytest

from pipeline.arrays import Rejected
from pipeline.sources.formats import sniff
from tests.meshes.files import read
from tests.sources.reported import reported

PLACES = [[0, 0, 0], [2, 0, 0], [2, 1, 0], [0, 1, 0]]
FACES = [[0, 1, 2, 3], [0, 2, 1]]
TRIANGLES = [[0, 1, 2], [0, 2, 3], [0, 2, 1]]
MORE = {"ST": "0.25 0.75", "C": "255 0 0 255", "N": "0 0 1"}
PREFIXES = ["".join(some) for count in range(4) for some in itertools.permutations(MORE, count)]


def lines(keyword: str = "OFF", more: str = "", colour: str = "", counts: str = "4 2 0") -> list[str]:
    """The lines of the usual layout. more: behind each vertex; colour: behind each face."""
    vertices = [" ".join([*map(str, place), more]).strip() for place in PLACES]
    faces = [" ".join([str(len(face)), *map(str, face), colour]).strip() for face in FACES]
    return [keyword, counts, *vertices, *faces]


def check(text: str) -> None:
    mesh = read(text, "shape.off").value
    np.testing.assert_array_equal(mesh.vertices, PLACES)
    np.testing.assert_array_equal(mesh.faces, TRIANGLES)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("separator", ["\n", " "])
def test_every_order_of_the_letters_is_read_on_lines_and_in_one(prefix, separator):
    more = " ".join(MORE[letters] for letters in MORE if letters in prefix)
    text = separator.join(lines(f"{prefix}OFF", more))
    check(text)
    assert sniff(text.encode(), len(text))
    assert read(text, "without_suffix").figures["format"] == "off"


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("letter", ["4", "n", "4n"])
def test_more_than_three_coordinates_are_named_whatever_the_order(prefix, letter):
    for keyword in (f"{prefix}{letter}OFF", f"{letter}{prefix}OFF"):
        with pytest.raises(Rejected, match=rf"{keyword}.*three coordinates"):
            read("\n".join([keyword, "4", *lines()[1:]]), "shape.off")


@pytest.mark.parametrize("head", ["nOFF\n3\n4 2 0\n", "nOFF 3\n4 2 0\n", "nOFF 3 4 2 0\n"])
def test_three_coordinates_may_be_announced(head):
    check(head + "\n".join(lines()[2:]))


@pytest.mark.parametrize("colour", ["", "0.5 0.5 0.5", "255 0 0 255", "3"])
@pytest.mark.parametrize("counts", ["4 2 0", "4 2", "4\n2\n0", "4 2\n0"])
def test_faces_on_lines_may_end_with_colours_however_the_rest_is_broken(colour, counts):
    keyword, counts, *others = lines(colour=colour, counts=counts)
    check("\n".join([keyword, counts, *others]))
    vertices, faces = others[:4], others[4:]
    check("\n".join([keyword, counts, " ".join(vertices), *faces]))
    check("\n".join([keyword, counts, *vertices, *(face.replace(" ", "\n", 2) for face in faces)]))
    check("\n".join([f"{keyword} {counts}", " ".join(vertices[:3]), vertices[3], "", *faces]))


def test_comments_stand_behind_anything():
    check("OFF\n4 # vertices\n2 # faces\n0 # edges\n" + " # and so on\n".join(lines()[2:]))


@pytest.mark.parametrize("per_line", [1, 2, 5, 7, 100])
def test_numbers_may_be_broken_into_lines_anywhere(per_line):
    words = " ".join(lines()[1:]).split()
    broken = [" ".join(words[at : at + per_line]) for at in range(0, len(words), per_line)]
    check("OFF\n" + "\n".join(broken))
    check("OFF " + "\n".join(broken))


def test_colours_of_three_numbers_are_read_in_one_line_too():
    check(" ".join(lines("COFF", "255 0 0")))


@pytest.mark.parametrize("per_line", [1, 4, 100])
def test_numbers_without_lines_that_are_too_few_or_too_many_are_refused(per_line):
    words = " ".join(lines()[1:]).split()
    for spoiled in (words[:-1], [*words, "0"], words[:3] + words[4:], words[:5], ["9", *words[1:]], ["4"]):
        broken = [" ".join(spoiled[at : at + per_line]) for at in range(0, len(spoiled), per_line)]
        with pytest.raises(Rejected, match=r"the header announces|has no counts"):
            read("OFF\n" + "\n".join(broken), "shape.off")


def test_counts_without_lines_are_believed_as_little_as_others():
    with pytest.raises(Rejected, match=r"4000000000 vertices and 1 faces, more than .* bytes"):
        read("OFF\n4000000000\n1\n0\n0\n0\n0\n", "shape.off")
    with pytest.raises(Rejected, match="announces 4 vertices; the limit is 3"):
        read(" ".join(lines()), "shape.off", max_vertices=3)


def test_what_meshlab_writes_with_normals_and_colours_is_read():
    product = read(reported("meshlab_vertex_normal_vertex_color.off"), "shape.off")
    assert product.figures == {"format": "off", "vertices": 8, "faces": 12, "repairs": []}
    np.testing.assert_array_equal(product.value.bounds, [[0, 0, 0], [1, 2, 3]])
