"""Light field distance: the original program's integers, and what it can and cannot tell apart."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipeline.arrays import Mesh, Rejected
from pipeline.evaluation.light_field import (
    ALIGNMENTS,
    CORNERS,
    ROTATIONS,
    light_field_descriptor,
    light_field_distance,
    light_field_distances,
)
from pipeline.evaluation.outline import outline
from pipeline.evaluation.silhouette import silhouette
from tests import solids

BOX = (0.8, 0.5, 0.3)


def revolved(profile, sides=64):
    """A closed surface around z: (radius, height) from the lower pole to the upper, both of radius 0."""
    angles = 2 * np.pi * np.arange(sides) / sides
    rings = [(r * np.cos(angles), r * np.sin(angles), np.full(sides, z)) for r, z in profile]
    vertices = np.stack(rings).transpose(0, 2, 1).reshape(-1, 3)
    corner = (np.arange(len(profile) - 1)[:, None] * sides + np.arange(sides)).reshape(-1)
    beside = corner - corner % sides + (corner + 1) % sides
    lower, upper = [corner, beside, corner + sides], [beside, beside + sides, corner + sides]
    faces = np.concatenate([np.stack(lower, -1), np.stack(upper, -1)])
    mesh = Mesh(vertices, faces)
    return Mesh(
        mesh.vertices,
        faces[np.linalg.norm(np.cross(*np.diff(mesh.triangles, axis=1).transpose(1, 0, 2)), axis=1) > 1e-12],
    )


def capsule():
    latitude = np.radians(np.arange(-90, 1, 10))
    low = np.stack([0.2 * np.cos(latitude), -0.25 + 0.2 * np.sin(latitude)], axis=1)
    return revolved([*low, *(low[::-1] * [1, -1])])


MESHES = {
    "sphere": lambda: solids.icosphere(0.4, subdivisions=4),
    "box": lambda: solids.box(BOX),
    "torus": lambda: solids.torus(0.3, 0.12),
    "cylinder": lambda: revolved([(0, -0.4), (0.2, -0.4), (0.2, 0.4), (0, 0.4)]),
    "capsule": capsule,
}


@pytest.fixture(scope="module")
def descriptors():
    return {name: light_field_descriptor(make()) for name, make in MESHES.items()}


@pytest.mark.parametrize(
    ("one", "other", "golden"),
    [("sphere", "box", 6910), ("sphere", "torus", 5705), ("box", "torus", 4436), ("cylinder", "capsule", 1989)],
)
def test_the_originals_integers(descriptors, one, other, golden):
    """Sheet lfd.md, section 11."""
    assert light_field_distance(descriptors[one], descriptors[other]) == golden
    assert light_field_distance(descriptors[other], descriptors[one]) == golden


def test_the_originals_images_and_bytes_of_a_box_and_a_sphere(descriptors):
    """Sheet lfd.md, section 11."""
    scaled = solids.moved(solids.box(BOX), scale=1 / 0.8)  # longest edge 1
    counts = [np.count_nonzero(silhouette(scaled, corner, 256)) for corner in CORNERS]
    assert counts == [12206, 12434, 10400, 12434, 12206, 8514, 5760, 8514, 8826, 8826]
    moments = "34 82 0 0 0 54 39 8 0 0 0 16 11 7 0 0 0 15 14 12 0 0 0 3 4 4 0 0 0 2 2 1 0 0 0"
    fourier = "0 50 0 25 0 8 0 2 0 2"
    expected = np.array(f"{moments} {fourier} 163 35".split(), int)
    np.testing.assert_array_equal(descriptors["box"][0, 0], expected)
    np.testing.assert_array_equal(descriptors["sphere"][0, 0], [101, 2, *[0] * 43, 160, 0])


def test_the_alignments_are_a_group_that_carries_corners_to_corners():
    words = {tuple(word) for word in ALIGNMENTS}
    assert len(words) == 60
    assert {tuple(np.array(one)[list(other)]) for one in words for other in words} == words
    # A rotation keeps the angles between the axes through the corners.
    unit = CORNERS / np.linalg.norm(CORNERS, axis=1, keepdims=True)
    angles = np.abs(unit @ unit.T)
    for word in ALIGNMENTS:
        np.testing.assert_allclose(angles[np.ix_(word, word)], angles, atol=1e-4)


def test_the_turned_dodecahedra_are_turned_only():
    for rotation in ROTATIONS:
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
        assert np.linalg.det(rotation) == pytest.approx(1, abs=1e-6)


def tripod():
    """Three arms of unlike length and place: no symmetry, and not its own mirror image."""
    arms = [
        ((0.8, 0.1, 0.12), (0.2, 0.0, 0.0)),
        ((0.1, 0.5, 0.1), (0.3, 0.25, 0.02)),
        ((0.12, 0.1, 0.6), (-0.1, 0.05, 0.3)),
    ]
    return solids.join(*(solids.box(*arm) for arm in arms))


@pytest.fixture(scope="module")
def of_tripod():
    return light_field_descriptor(tripod())


def turned(mesh, degrees, axis):
    rotation = Rotation.from_rotvec(np.radians(degrees) * np.asarray(axis, float) / np.linalg.norm(axis))
    return Mesh(rotation.apply(mesh.vertices), mesh.faces)


def with_edge_midpoints(mesh):
    """The same surface, every face cut in four."""
    a, b, c = mesh.triangles.transpose(1, 0, 2)
    d, e, f = (a + b) / 2, (b + c) / 2, (c + a) / 2
    corners = np.stack([a, d, f, d, b, e, f, e, c, d, e, f], axis=1).reshape(-1, 3)
    return Mesh(corners, np.arange(len(corners)).reshape(-1, 3))


def test_copies_moved_scaled_or_cut_finer_are_at_distance_zero(of_tripod):
    mesh = tripod()
    unused = [(50, 0, 0), (np.nan, 0, 0)]
    for copy in (
        solids.moved(mesh, (3.1, -2.7, 0.4)),
        solids.moved(mesh, (1e3, 2e3, -5e2), 250.0),
        Mesh([*mesh.vertices, *unused], mesh.faces[:, ::-1]),
    ):
        assert light_field_distance(of_tripod, copy) == 0
    assert light_field_distance(of_tripod, with_edge_midpoints(mesh)) <= 1


def test_turns_show_but_for_the_half_turn_about_the_up_axis(of_tripod):
    """Sheet lfd.md, section 9."""
    assert 0 < light_field_distance(of_tripod, turned(tripod(), 180, (0, 1, 0))) < 200
    assert light_field_distance(of_tripod, turned(tripod(), 90, (1, 0, 0))) > 900
    assert light_field_distance(of_tripod, turned(tripod(), 72, (0, 0, 1))) > 900  # though the first set of eyes has it


def test_a_mirror_image_looks_like_the_half_turn_about_the_mirrors_axis(of_tripod):
    mirrored = Mesh(tripod().vertices * [-1, 1, 1], tripod().faces)
    across = light_field_distance(of_tripod, mirrored)
    assert abs(across - light_field_distance(of_tripod, turned(tripod(), 180, (1, 0, 0)))) < 200 < across
    assert light_field_distance(of_tripod, Mesh(-tripod().vertices, tripod().faces)) < 200


def test_the_ports_defect_drops_the_second_meshs_eccentricities(descriptors):
    sphere, box = descriptors["sphere"], descriptors["box"]
    assert light_field_distance(sphere, sphere, "pip") == 0
    assert light_field_distance(box, box, "pip") == box[..., -1].astype(int).sum(axis=1).min() > 0
    assert light_field_distance(sphere, box, "pip") != light_field_distance(box, sphere, "pip")
    assert light_field_distance(sphere, box, "pip") < light_field_distance(sphere, box)  # round things have none


def test_all_pairs_at_once_are_the_pairs_one_by_one(descriptors):
    names = list(MESHES)
    stacked = np.stack([descriptors[name] for name in names])
    for variant in ("full", "pip"):
        matrix = light_field_distances(stacked[:3], stacked, variant)
        assert matrix.dtype == np.int64
        for i, one in enumerate(names[:3]):
            assert [light_field_distance(descriptors[one], descriptors[other], variant) for other in names] == list(
                matrix[i]
            )
    np.testing.assert_array_equal(np.diag(light_field_distances(stacked, stacked)), 0)


def test_a_flat_mesh_has_empty_views_and_a_finite_distance(descriptors):
    square = Mesh([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)], [(0, 1, 2), (0, 2, 3)])
    descriptor = light_field_descriptor(square)
    assert np.isfinite(light_field_distance(descriptor, descriptors["box"]))
    line = Mesh([(0, 0, 0), (1, 0, 0), (0.5, 0, 0)], [(0, 1, 2)])
    assert not light_field_descriptor(line).any()
    assert light_field_distance(line, line) == 0


def test_meshes_in_two_far_parts_are_joined_by_a_bridge_and_described():
    dumbbell = solids.join(solids.box((0.1, 0.1, 0.1), (-0.45, 0, 0)), solids.icosphere(0.05, (0.45, 0.3, 0.2), 2))
    descriptor = light_field_descriptor(dumbbell)
    assert descriptor[..., 35:45].any(axis=2).all()


@pytest.mark.parametrize(
    ("mesh", "reason"),
    [
        (Mesh(np.zeros((3, 3)), np.zeros((0, 3))), "no faces"),
        (Mesh([(0, 0, 0), (1, 0, np.nan), (0, 1, 0)], [(0, 1, 2)]), "1 of 3 vertices are not finite"),
        (Mesh(np.ones((3, 3)), [(0, 1, 2)]), "at one place"),
        (Mesh(np.ones((3, 3)), [(0, 1, 7)]), "name vertices up to 7"),
    ],
)
def test_meshes_that_cannot_be_seen_are_rejected(mesh, reason):
    with pytest.raises(Rejected, match=reason):
        light_field_descriptor(mesh)


def test_other_variants_and_arrays_are_refused(descriptors):
    with pytest.raises(ValueError, match="no light field distance 'paper'"):
        light_field_distance(descriptors["box"], descriptors["box"], "paper")
    with pytest.raises(ValueError, match="descriptors are"):
        light_field_distances(np.zeros((1, 4700), np.uint8), np.zeros((1, 10, 10, 47), np.uint8))


def image_of(*rows):
    """Rows from top to bottom as they are read, # for the object; a margin is added."""
    return np.pad(np.array([[c == "#" for c in row] for row in rows])[::-1], 4)


def test_the_outline_of_a_square_visits_its_rim_and_ends_where_it_began():
    path = outline(image_of("####", "####", "####", "####"))
    assert tuple(path[0]) == tuple(path[-1]) == (4, 4)
    assert len(path) == 13
    assert len({tuple(p) for p in path}) == 12


def test_a_bridge_of_one_pixel_is_walked_there_and_back():
    path = outline(image_of("###...###", "#########", "###...###"))
    visits = [tuple(p) for p in path]
    assert visits.count((8, 5)) == 2


def test_parts_apart_are_joined_and_a_lone_pixel_is_its_own_outline():
    path = outline(image_of("##.....##", "##.....##"))
    x = path[:, 0]
    assert x.min() == 4 and x.max() == 12 and set(range(4, 13)) == set(x.tolist())
    assert len(outline(image_of("#"))) == 1
    assert outline(np.zeros((9, 9), bool)).shape == (0, 2)


def test_a_silhouette_covers_the_centres_within_and_leaves_no_gap():
    eye = np.array([0.0, 0.0, 1.0])
    sphere = silhouette(solids.icosphere(0.5, subdivisions=5), eye, 64)
    axis = 2 * (np.arange(64) + 0.5) / 64 - 1
    distance = np.hypot(*np.meshgrid(axis, axis))
    clear = np.abs(distance - 0.5) > 2e-3
    np.testing.assert_array_equal(sphere[clear], (distance < 0.5)[clear])
    corner = Mesh([(0.1, 0.2, 0), (0.6, 0.2, 0), (0.1, 0.9, 0)], [(0, 1, 2)])
    y, x = np.nonzero(silhouette(corner, eye, 64))
    assert x.min() == 35 and y.min() == 38  # right is +x, up is +y
