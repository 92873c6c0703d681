"""npz files from strangers."""

import io
import pickle
import zipfile

import numpy as np
import pytest

from pipeline.arrays import Rejected
from pipeline.exchange.npz import read_npz, take, write_npz


def npz_with(name: str, content: bytes, method=zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr(name, content)
    return stream.getvalue()


def npy(array: np.ndarray, **keys) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **keys)
    return stream.getvalue()


def test_arrays_come_back_whatever_their_type_and_order():
    arrays = {"a": np.arange(6, dtype=np.float16).reshape(2, 3), "b": np.asfortranarray(np.eye(3)), "c": np.float64(2)}
    back = read_npz(write_npz(arrays))
    assert set(back) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype == array.dtype
    compressed = io.BytesIO()
    np.savez_compressed(compressed, **arrays)
    np.testing.assert_array_equal(read_npz(compressed.getvalue())["b"], np.eye(3))


def test_equal_arrays_give_equal_bytes():
    assert write_npz({"a": np.arange(5)}) == write_npz({"a": np.arange(5)})


def test_objects_are_never_unpickled(monkeypatch):
    monkeypatch.setattr(pickle, "load", lambda *a, **k: pytest.fail("something was unpickled"))
    content = npz_with("a.npy", npy(np.array([{"a": 1}], object), allow_pickle=True))
    with pytest.raises(Rejected, match="Python objects"):
        read_npz(content)


def test_a_header_that_announces_too_much_is_refused_before_anything_is_allocated():
    whole = npy(np.zeros((10, 3), np.float32))
    lying = whole.replace(b"(10, 3)", b"(99, 3)")
    with pytest.raises(Rejected, match="announces 1,188 bytes"):
        read_npz(npz_with("a.npy", lying))


def test_a_bomb_is_refused_by_the_size_its_directory_names():
    content = npz_with("a.npy", npy(np.zeros(2**20)), zipfile.ZIP_DEFLATED)
    assert len(content) < 2**15
    with pytest.raises(Rejected, match="more than"):
        read_npz(content, most_bytes=2**20)


@pytest.mark.parametrize(
    "content",
    [b"", b"not a zip", npz_with("a.npy", b"not an array"), npz_with("a.npy", b""), write_npz({"a": np.eye(9)})[:-40]],
)
def test_what_is_no_npz_is_rejected(content):
    with pytest.raises(Rejected, match="not an npz file"):
        read_npz(content)


def test_a_flipped_bit_is_found():
    content = bytearray(write_npz({"a": np.arange(1000)}))
    content[2000] ^= 1
    with pytest.raises(Rejected, match="not an npz file"):
        read_npz(bytes(content))


def test_an_array_must_have_the_shape_asked_for():
    arrays = {"a": np.zeros((5, 3)), "words": np.array(["x"])}
    assert take(arrays, "a", None, 3).shape == (5, 3)
    for name, shape in (("a", (3,)), ("a", (None, 4)), ("b", ()), ("words", (1,))):
        with pytest.raises(Rejected):
            take(arrays, name, *shape)
