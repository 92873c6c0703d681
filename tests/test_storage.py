"""Encodings: what is read is what was rounded, at the stated error and size."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError

from pipeline import storage
from pipeline.storage import bits_encoding, decode, encode, png_encoding, points_encoding, rounded
from pipeline.storage_settings import StorageSettings

BOUNDS = (1 / 64, 0.5, 0.5625, 1.0, 37.25)
NUMERIC = [("float32",), ("float16",), *(("uint16", bound) for bound in BOUNDS)]

unit_interval = st.floats(-1, 1, width=32)
points_arrays = hnp.arrays(np.float32, st.tuples(st.integers(0, 20), st.just(3)), elements=unit_interval)
directions = hnp.arrays(np.float64, (12, 3), elements=st.floats(-1, 1).map(lambda v: v if abs(v) > 1e-12 else 0.0))
flags = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9))


def bits_of(array):
    return array.dtype, array.shape, array.tobytes()


def random_directions(count, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def degrees_between(a, b):
    """By the chord, which stays exact for small angles."""
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a.astype(float), b.astype(float)))
    return np.degrees(2 * np.arcsin(np.linalg.norm(a - b, axis=1) / 2))


@pytest.mark.parametrize("encoding", NUMERIC, ids=str)
@given(array=points_arrays)
def test_storing_rounded_numbers_loses_nothing(encoding, array):
    if encoding[0] == "uint16":
        array = array * np.float32(encoding[1])
    once = rounded(array, encoding)
    assert once.dtype == np.float32
    assert bits_of(rounded(once, encoding)) == bits_of(once)


@pytest.mark.parametrize("encoding", [("oct8",), ("oct16",)], ids=str)
@given(vectors=directions)
def test_storing_rounded_normals_loses_nothing(encoding, vectors):
    vectors = vectors[np.abs(vectors).sum(axis=1) > 0]
    once = rounded(vectors, encoding)
    assert once.dtype == np.float32
    assert bits_of(rounded(once, encoding)) == bits_of(once)
    np.testing.assert_allclose(np.linalg.norm(once.astype(float), axis=1), 1, atol=1e-6)


@given(array=flags)
def test_bits_come_back_in_their_shape_even_through_json(array):
    encoding = json.loads(json.dumps(bits_encoding(array)))
    stored = encode(array, encoding)
    assert stored.dtype == np.uint8
    assert stored.nbytes == -(-array.size // 8)
    assert bits_of(decode(stored, encoding)) == bits_of(array)


def test_every_code_of_an_octahedral_byte_pair_decodes_to_a_fixed_point():
    steps = np.arange(-127, 128, dtype=np.int8)
    codes = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    normals = decode(codes, ("oct8",))
    assert bits_of(rounded(normals, ("oct8",))) == bits_of(normals)


def test_octahedral_corners_are_the_axes():
    axes = np.array([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)], np.float32)
    codes = [(127, 0), (-127, 0), (0, 127), (0, -127), (0, 0), (127, 127)]
    np.testing.assert_array_equal(encode(axes, ("oct8",)), codes)
    np.testing.assert_array_equal(rounded(axes, ("oct8",)), axes)
    np.testing.assert_array_equal(rounded(axes, ("oct16",)), axes)


@pytest.mark.parametrize(("kind", "limit"), [("oct8", 0.96), ("oct16", 0.004), ("float16", 0.024)])
def test_normals_turn_by_no_more_than_the_settings_say(kind, limit):
    normals = random_directions(200_000)
    error = degrees_between(rounded(normals, (kind,)), normals).max()
    assert limit / 2 < error <= limit


def test_half_precision_normals_are_nearly_of_unit_length():
    lengths = np.linalg.norm(rounded(random_directions(200_000), ("float16",)).astype(float), axis=1)
    assert 1e-4 < np.abs(lengths - 1).max() < 5e-4


@pytest.mark.parametrize("bound", BOUNDS)
def test_quantised_points_err_by_half_a_step(bound):
    points = np.random.default_rng(1).uniform(-bound, bound, (10_000, 3))
    error = np.abs(rounded(points, ("uint16", bound)) - points).max()
    assert 0.4 * bound / 32767 < error < 0.51 * bound / 32767


def test_quantised_zero_and_both_ends_are_exact():
    values = np.array([-0.55, 0.0, 0.55])
    np.testing.assert_array_equal(encode(values, ("uint16", 0.55)), [0, 32767, 65534])
    np.testing.assert_array_equal(rounded(values, ("uint16", 0.55)), values.astype(np.float32))


@given(points=points_arrays, kind=st.sampled_from(["float32", "float16", "uint16"]))
def test_the_chosen_encoding_holds_its_points(points, kind):
    encoding = points_encoding(points, kind)
    assert json.loads(json.dumps(encoding)) == list(encoding)
    tolerance = {"float32": 0, "float16": 2.5e-4, "uint16": 1.6e-5}[kind]
    np.testing.assert_allclose(rounded(points, encoding), points, atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("reach", "bound"), [(0.0, 1 / 64), (0.5, 0.5), (0.5001, 33 / 64), (0.55, 36 / 64), (3.0, 3.0)]
)
def test_bounds_are_the_next_multiple_of_a_64th(reach, bound):
    assert points_encoding(np.array([[0.0, -reach, reach / 2]]), "uint16") == ("uint16", bound)


def test_a_point_beyond_the_bound_by_a_rounding_error_still_fits():
    assert rounded(np.array([np.nextafter(0.5, 1)]), ("uint16", 0.5)) == 0.5


@pytest.mark.parametrize(
    ("array", "encoding", "message"),
    [
        (np.array([0.1, 0.6]), ("uint16", 0.5), "reach 0.6"),
        (np.array([np.nan]), ("uint16", 0.5), "range"),
        (np.array([7e4]), ("float16",), "65504"),
        (np.array([np.nan]), ("float16",), "finite"),
        (np.zeros((1, 3)), ("oct8",), "direction"),
        (np.array([[np.inf, 0, 0]]), ("oct16",), "direction"),
        (np.zeros(8, np.uint8), ("bits", [8]), "uint8"),
        (np.zeros((2, 4), bool), ("bits", [8]), "shape"),
        (np.zeros(3), ("uint8",), "unknown encoding"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(array, encoding, message):
    with pytest.raises(ValueError, match=message):
        encode(array, encoding)


def test_an_unknown_encoding_cannot_be_read():
    with pytest.raises(ValueError, match="unknown encoding"):
        decode(np.zeros(3, np.uint8), ("zip",))


def test_points_that_are_not_finite_have_no_range():
    with pytest.raises(ValueError, match="not finite"):
        points_encoding(np.array([[0, np.inf, 0]]), "uint16")


def test_flags_are_packed_highest_bit_first():
    array = np.array([True] + 7 * [False] + [False, True])
    np.testing.assert_array_equal(encode(array, ("bits", [10])), [0b10000000, 0b01000000])
    np.testing.assert_array_equal(decode(np.array([128, 64], np.uint8), ("bits", 10)), array)


@pytest.mark.parametrize("field", ["points", "normals", "sdf"])
def test_every_kind_the_settings_offer_is_an_encoding(field):
    values = random_directions(5) / 2 if field == "points" else random_directions(5)
    for kind in StorageSettings.model_json_schema()["properties"][field]["enum"]:
        encoding = points_encoding(values, kind) if field == "points" else (kind,)
        np.testing.assert_allclose(rounded(values, encoding), values, atol=0.02)


def test_settings_refuse_unknown_kinds_and_keys():
    with pytest.raises(ValidationError):
        StorageSettings(points="int4")
    with pytest.raises(ValidationError):
        StorageSettings(colours="float16")


def test_heads_of_the_sampling_stages_load_no_numpy():
    script = (
        "import sys; from pipeline.settings import module_head\n"
        "for name, settings in (('surface', 'SurfaceSettings'), ('boundary', 'BoundarySettings'),\n"
        "                       ('volume', 'VolumeSettings'), ('sdf', 'SdfSettings'), ('voxels', 'VoxelSettings'),\n"
        "                       ('observation', 'PointCloudSettings')):\n"
        "    getattr(module_head('pipeline.samples.' + name), settings)\n"
        "import pipeline.samples.observation\n"
        "assert 'numpy' not in sys.modules"
    )
    root = storage.__file__.rsplit("/pipeline/", 1)[0]
    subprocess.run([sys.executable, "-c", script], check=True, cwd=root)


# --- pictures


@pytest.mark.parametrize("shape", [(3, 5, 4, 4), (2, 6, 7, 3), (1, 4, 4, 1)])
def test_pictures_come_back_bit_for_bit(shape):
    pictures = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    encoding = png_encoding(pictures)
    stored = encode(pictures, encoding)
    assert stored.dtype == np.uint8
    assert stored[:4].tobytes() == b"\x89PNG"
    np.testing.assert_array_equal(decode(stored, encoding), pictures)


@pytest.mark.parametrize(
    "pictures", [np.zeros((2, 4, 4, 4)), np.zeros((2, 4, 4, 2), np.uint8), np.zeros((4, 4, 4), np.uint8)]
)
def test_what_is_no_picture_is_refused(pictures):
    with pytest.raises(ValueError, match="uint8 pictures"):
        encode(pictures, png_encoding(pictures))


def test_a_png_of_another_size_is_refused():
    stored = encode(np.zeros((2, 4, 4, 4), np.uint8), ("png", [2, 4, 4, 4]))
    with pytest.raises(ValueError, match="holds a picture of size"):
        decode(stored, ("png", [2, 4, 8, 4]))
