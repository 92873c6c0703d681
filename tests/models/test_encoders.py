"""Picture and voxel encoders: figures of ResNet-18, what is done to views, and reading ImageNet weights."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.models import encoders
from pipeline.models.encoders import ImageEncoder, ResNet18, VoxelEncoder


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_resnet_has_the_size_and_the_names_of_torchvisions():
    network = ResNet18()
    names = set(network.state_dict())
    assert parameters(network) == 11_176_512
    assert parameters(ResNet18(classes=1000)) == 11_689_512  # torchvision's documentation of resnet18
    assert {"conv1.weight", "bn1.running_var", "layer1.0.conv1.weight", "layer4.1.bn2.bias"} <= names
    assert {"layer2.0.downsample.0.weight", "layer2.0.downsample.1.running_mean"} <= names
    assert not any(name.startswith(("layer1.0.downsample", "fc")) for name in names)
    assert {"fc.weight", "fc.bias"} == set(ResNet18(classes=10).state_dict()) - names


def test_encoder_adds_one_linear_layer_to_the_trunk():
    encoder = ImageEncoder(256)
    assert parameters(encoder) == 11_307_840
    assert parameters(VoxelEncoder(256)) == 5_750_848


def test_basic_block_is_its_formula():
    torch.manual_seed(0)
    block = encoders.BasicBlock(4, 6, 2).eval()
    for norm in (block.bn1, block.bn2, block.downsample[1]):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.running_mean)
    x = torch.randn((2, 4, 9, 9))

    def norm(y: torch.Tensor, bn: nn.BatchNorm2d) -> torch.Tensor:
        scale = bn.weight / (bn.running_var + 1e-5).sqrt()
        return (y - bn.running_mean[:, None, None]) * scale[:, None, None] + bn.bias[:, None, None]

    hidden = norm(torch.conv2d(x, block.conv1.weight, stride=2, padding=1), block.bn1).clamp(min=0)
    branch = norm(torch.conv2d(hidden, block.conv2.weight, padding=1), block.bn2)
    kept = norm(torch.conv2d(x, block.downsample[0].weight, stride=2), block.downsample[1])
    torch.testing.assert_close(block(x), (branch + kept).clamp(min=0))


def test_resnet_halves_the_picture_five_times_and_then_averages():
    network, sizes = ResNet18(width=4).eval(), []
    for module in (network.conv1, network.layer1, network.layer2, network.layer3, network.layer4):
        module.register_forward_hook(lambda _, __, y: sizes.append(tuple(y.shape[1:])))
    assert network(torch.rand((1, 3, 224, 224))).shape == (1, 32)
    assert sizes == [(4, 112, 112), (4, 56, 56), (8, 28, 28), (16, 14, 14), (32, 7, 7)]


def test_pictures_are_normalised_as_for_imagenet():
    """0.485, 0.456, 0.406 and 0.229, 0.224, 0.225: the sheet of Occupancy Networks, 2.5."""
    image = torch.tensor([0.485, 0.456, 0.406 + 0.225]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    expected = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    torch.testing.assert_close(encoders.normalised(image), expected)


def test_voxels_are_seen_axis_by_axis():
    """A tap at the far end of one axis reads the neighbour along that axis."""
    encoder = VoxelEncoder(4, resolution=16, channels=1)
    with torch.no_grad():
        encoder.conv_in.weight.zero_()
        encoder.conv_in.weight[0, 0, 2, 1, 1] = 1.0
        encoder.conv_in.bias.zero_()
    seen = []
    encoder.conv_in.register_forward_hook(lambda _, __, y: seen.append(y.clone()))
    voxels = torch.rand((2, 16, 16, 16), generator=generator()) > 0.5
    assert encoder(voxels).shape == (2, 4)
    torch.testing.assert_close(seen[0][:, 0, :-1], voxels[:, 1:].float())


def test_views_are_laid_on_white_by_their_transparency():
    view = np.zeros((1, 1, 1, 4), np.uint8)
    for alpha, expected in ((0, (255, 255, 255)), (255, (10, 200, 0)), (128, (132, 227, 127))):
        view[0, 0, 0] = (10, 200, 0, alpha)
        laid = encoders.on_white(view)
        assert laid.dtype == np.uint8
        assert tuple(laid[0, :, 0, 0]) == expected


def test_other_views_are_refused():
    with pytest.raises(ValueError, match=r"\(V, S, S, 4\) uint8 .* these are \(2, 8, 8, 3\) uint8"):
        encoders.on_white(np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"these are \(2, 8, 8, 4\) float64"):
        encoders.on_white(np.zeros((2, 8, 8, 4)))


def test_pictures_keep_their_place_and_brightness_when_resized():
    ramp = torch.arange(0, 250, 10, dtype=torch.uint8).expand(1, 3, 25, 25).contiguous()
    larger = encoders.resized(ramp, 100)
    centres = (torch.arange(100) + 0.5) / 100 * 25 - 0.5
    expected = (10 * centres / 255).clamp(0, 240 / 255)
    torch.testing.assert_close(larger[0, 1, 50], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(encoders.resized(ramp, 25), ramp / 255)


def test_fine_patterns_become_grey_when_pictures_shrink():
    stripes = (255 * (torch.arange(64) % 2)).to(torch.uint8).expand(1, 3, 64, 64).contiguous()
    inner = encoders.resized(stripes, 8)[..., 1:-1]
    torch.testing.assert_close(inner, torch.full_like(inner, 0.5), atol=0.02, rtol=0)


def test_pictures_of_another_form_are_refused():
    with pytest.raises(ValueError, match="red green blue and square"):
        encoders.resized(torch.zeros((1, 1, 8, 8), dtype=torch.uint8), 8)
    with pytest.raises(ValueError, match="bytes from 0 to 255"):
        encoders.resized(torch.zeros((1, 3, 8, 8)), 8)


def test_crops_are_squares_inside_the_picture_of_the_asked_area():
    """Pictures that hold their own coordinates tell where each crop lies."""
    place = (torch.arange(64) + 0.5) / 64
    image = torch.stack([place.expand(64, 64), place[:, None].expand(64, 64)])
    crops = encoders.random_crops(image.expand(300, 2, 64, 64), 0.25, generator(1))
    spans = torch.stack([crops[:, 0, 0, -1] - crops[:, 0, 0, 0], crops[:, 1, -1, 0] - crops[:, 1, 0, 0]]) * 64 / 63
    torch.testing.assert_close(spans[0], spans[1], atol=0.02, rtol=0)
    share = spans[0] ** 2
    assert 0.22 < float(share.min()) < 0.3 and 0.95 < float(share.max()) < 1.05
    assert float(share.mean()) == pytest.approx(0.625, abs=0.04)
    assert float(crops.min()) > 0 and float(crops.max()) < 1
    left = crops[:, 0, 0, 0]
    assert float(left.min()) < 0.03 and float(left.max()) > 0.35


def test_equal_generators_crop_equally():
    images = torch.rand((4, 3, 16, 16), generator=generator())
    first, second = (encoders.random_crops(images, 0.5, generator(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, encoders.random_crops(images, 0.5, generator(4)))


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    tensors = ResNet18(width=2, classes=10).state_dict()
    return {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_imagenet_weights_of_either_format_replace_the_trunks(weights, suffix, tmp_path):
    path = tmp_path / f"resnet18{suffix}"
    torch.save(weights, path) if suffix == ".pth" else save_file(weights, path)
    torch.manual_seed(6)
    network = ResNet18(width=2)
    encoders.load_imagenet(network, path)
    for name, tensor in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, weights[name]), name


def test_weights_of_another_network_are_refused_by_name(weights, tmp_path):
    path = tmp_path / "other.pth"
    torch.save({**weights, "layer2.0.conv1.weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"another shape: layer2\.0\.conv1\.weight\. It should be torchvision"):
        encoders.load_imagenet(ResNet18(width=2), path)


class Program:
    """Unpickling it makes a folder."""

    def __init__(self, target) -> None:
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_a_file_that_would_run_a_program_is_refused_and_does_not(tmp_path):
    path, made = tmp_path / "weights.pth", tmp_path / "made"
    torch.save({"conv1.weight": Program(made)}, path)
    with pytest.raises(ValueError, match="can run any program"):
        encoders.load_imagenet(ResNet18(width=2), path)
    assert not made.exists()


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"weights\.pth: there is no such file"):
        encoders.load_imagenet(ResNet18(width=2), tmp_path / "weights.pth")
