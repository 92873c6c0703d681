"""Codes between two shapes."""

import pytest
import torch

from pipeline.reconstruction.interpolate import interpolated


def test_codes_lie_evenly_on_the_line_between_the_two():
    code = {"code": torch.tensor([[0.0, 4.0], [2.0, -4.0]]), "latent": torch.tensor([[[1.0]], [[3.0]]])}
    mixed = interpolated(code, 5)
    torch.testing.assert_close(mixed["code"][:, 0], torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0]))
    torch.testing.assert_close(mixed["code"][:, 1], torch.tensor([4.0, 2.0, 0.0, -2.0, -4.0]))
    assert mixed["latent"].shape == (5, 1, 1)
    assert torch.equal(mixed["code"][[0, 4]], code["code"])


def test_what_cannot_be_mixed_is_refused():
    with pytest.raises(ValueError, match="at least 2 steps"):
        interpolated({"code": torch.zeros((2, 3))}, 1)
    with pytest.raises(ValueError, match="'code' is of 3"):
        interpolated({"code": torch.zeros((3, 3))}, 4)
    with pytest.raises(ValueError, match="whole numbers"):
        interpolated({"view": torch.zeros(2, dtype=torch.long)}, 4)
