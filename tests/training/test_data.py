"""Resident data against plain indexing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.arrays import Rejected
from pipeline.training.data import ResidentData, Spill, gather_points, left_out_note, random_index
from tests.models.shapes import block_arrays, tiny_model


@pytest.fixture
def shapes() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        {"points": rng.random((50, 3), np.float32), "inside": rng.random(50) < 0.5, "count": np.int64(i)}
        for i in range(4)
    ]


def test_rows_are_those_of_the_shapes_in_order(shapes):
    data = ResidentData.from_shapes(shapes, names="abcd")
    assert len(data) == 4 and data.names == ("a", "b", "c", "d")
    for key in ("points", "inside", "count"):
        np.testing.assert_array_equal(data[key].numpy(), np.stack([shape[key] for shape in shapes]))
    assert data["inside"].dtype == torch.bool and data["count"].shape == (4,)


def test_only_asked_keys_are_kept(shapes):
    assert set(ResidentData.from_shapes(shapes, ["points"]).tensors) == {"points"}


def test_gathered_rows_are_those_of_plain_indexing(shapes):
    data = ResidentData.from_shapes(shapes)
    which, index = torch.tensor([3, 0, 3]), torch.randint(50, (3, 20), generator=torch.Generator().manual_seed(0))
    for key in ("points", "inside"):
        expected = np.stack([shapes[s][key][i] for s, i in zip(which.tolist(), index.numpy(), strict=True)])
        np.testing.assert_array_equal(gather_points(data[key], which, index).numpy(), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": np.zeros((49, 3), np.float32)}, r"shape 2: array 'points' is \(49, 3\) float32, but shape 0's is"),
        ({"points": np.zeros((50, 3))}, r"\(50, 3\) float64"),
        ({"points": None}, "shape 2 lacks the array 'points'"),
    ],
)
def test_shapes_that_do_not_fit_together_are_named(shapes, change, message):
    shapes[2] = {key: array for key, array in {**shapes[2], **change}.items() if array is not None}
    with pytest.raises(ValueError, match=message):
        ResidentData.from_shapes(shapes)


def test_for_model_keeps_what_the_model_prepares():
    data = ResidentData.for_model(tiny_model("onet"), [block_arrays(count=100)])
    assert set(data.tensors) == {"surface.points", "volume.points", "volume.occupancies"}


@pytest.mark.parametrize("limit", [10**9, 0])
def test_rejected_shapes_are_left_out_and_their_rows_with_them(shapes, limit, tmp_path):
    """In memory and in files, also where the first is one of them."""
    rejected = [Rejected("too thin"), shapes[0], shapes[1], Rejected("empty"), shapes[2]]
    data = ResidentData.from_shapes(rejected, names="abcde", spill=Spill(limit, tmp_path))
    assert data.names == ("b", "c", "e") and len(data) == 3
    assert data.left_out == {"a": "too thin", "d": "empty"}
    np.testing.assert_array_equal(data["points"].numpy(), np.stack([shape["points"] for shape in shapes[:3]]))
    none = ResidentData.from_shapes([Rejected("empty")], names="a")
    assert len(none) == 0 and none.left_out == {"a": "empty"}


def test_a_shape_that_does_not_fit_is_compared_with_the_first_that_is_kept(shapes):
    shapes[2].pop("points")
    with pytest.raises(ValueError, match="shape 3 lacks the array 'points', which shape 1 has"):
        ResidentData.from_shapes([Rejected("empty"), shapes[0], shapes[1], shapes[2]])


def test_a_note_counts_the_shapes_left_out_and_gives_one_reason():
    assert left_out_note("training", 3, {}) == ()
    note = "2 of 5 training shapes left out, the first a: too thin"
    assert left_out_note("training", 5, {"a": "too thin", "d": "empty"}) == (note,)


def test_random_indices_are_uniform_below_each_shapes_own_bound():
    bounds = torch.tensor([1, 7, 1000, 0])
    index = random_index(torch.Generator().manual_seed(0), 4, 7000, bounds)
    assert (index[0] == 0).all() and (index[3] == 0).all()
    counts = torch.bincount(index[1], minlength=7)
    assert len(counts) == 7 and (counts - 1000).abs().max() < 150
    assert index[2].min() < 5 and 995 <= index[2].max() <= 999


def test_random_indices_below_a_common_bound_follow_the_generator():
    one, other = (random_index(torch.Generator().manual_seed(1), 2, 100, 10) for _ in range(2))
    assert torch.equal(one, other) and set(one.unique().tolist()) == set(range(10))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a graphics card")
def test_arrays_beyond_the_limit_stay_on_the_host_and_their_rows_travel(shapes):
    near = ResidentData.from_shapes(shapes, device="cuda")
    far = ResidentData.from_shapes(shapes, device="cuda", limit=100)
    assert near["points"].is_cuda and far["points"].is_pinned()
    which, index = torch.tensor([3, 0], device="cuda"), torch.tensor([[1, 2], [3, 4]], device="cuda")
    rows = [gather_points(data["points"], which, index) for data in (near, far)]
    assert rows[1].is_cuda and torch.equal(*rows)
