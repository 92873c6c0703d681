"""IM-SVR: figures of the original (sheet imnet.md 1.4, 2.5, 3.4 and 8.12), pictures, and what it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.arrays import Rejected
from pipeline.models.contract import build_from
from pipeline.models.imnet import ModelSettings as ParentSettings
from pipeline.models.imnet_svr import ModelSettings, check_parent, grey_crops
from pipeline.training.data import ResidentData
from pipeline.training.loop import RuntimeSettings, TrainingSettings, train
from tests.models.shapes import BLOCKS, TURNED, block_arrays, tiny_model


@pytest.fixture(scope="module")
def shapes() -> list[dict[str, np.ndarray]]:
    return [block_arrays(BLOCKS, 2000), block_arrays(TURNED, 2000)]


def test_default_sizes_are_the_originals():
    parent = {"method": "imnet", "model": {"code": 256, "encoder_width": 1, "decoder_width": 1}}
    network = build_from({"method": "imnet_svr", "model": {}, "parent": parent}, 0).network
    assert sum(p.numel() for p in network.parameters()) == 17_462_976
    assert sum(b.numel() for b in network.buffers()) == 10_645


def test_the_last_bias_starts_as_torch_draws_it():
    """Uniform within one over the root of its inputs, 32 channels of 4 x 4; all other layers have none."""
    bias = tiny_model("imnet_svr", size=128).network.conv_10.bias.detach()
    bound = 1 / np.sqrt(32 * 4 * 4)
    assert len(torch.unique(bias)) == len(bias) and float(bias.abs().max()) <= bound
    others = [tiny_model("imnet_svr", size=128, seed=k).network.conv_10.bias.detach() for k in range(50)]
    assert float(torch.cat(others).std()) == pytest.approx(bound / np.sqrt(3), rel=0.1)


def test_pictures_shrink_as_the_originals():
    network = tiny_model("imnet_svr", size=128).network
    sizes = []
    for name, module in network.named_children():
        if not name.startswith("bn_"):
            module.register_forward_hook(lambda module, given, result: sizes.append(result.shape[-1]))
    network(torch.rand(2, 1, 128, 128))
    assert sizes == [64, 64, 64, 32, 32, 16, 16, 8, 8, 4, 1]


def test_the_background_is_nothing_to_the_network():
    network = tiny_model("imnet_svr").network.eval()
    seen = []
    network.conv_0.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    network(torch.ones(1, 1, 32, 32))
    assert not seen[0].any()


def test_pictures_are_grey_and_cropped_at_the_originals_place():
    images = torch.full((1, 3, 137, 137), 255, dtype=torch.uint8)
    images[0, :, 4, 4] = torch.tensor([200, 100, 50])  # 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
    images[0, :, 131, 131] = 0
    images[0, :, 3, :] = images[0, :, :, 132] = 9
    crop = grey_crops(images, 128)
    assert crop.shape == (1, 128, 128)
    assert crop[0, 0, 0] == 124
    assert crop[0, 127, 127] == 0
    assert int((crop != 255).sum()) == 2


def test_crops_are_resized_to_what_the_network_sees():
    images = torch.zeros((2, 3, 64, 64), dtype=torch.uint8)
    images[..., 32:] = 200
    crop = grey_crops(images, 32)
    assert crop.shape == (2, 32, 32)
    assert crop[:, :, 0].eq(0).all()
    assert crop[:, :, -1].eq(200).all()


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros((2, 4, 64, 64), dtype=torch.uint8),
        torch.zeros((2, 1, 64, 64), dtype=torch.uint8),
        torch.zeros((2, 3, 64, 48), dtype=torch.uint8),
        torch.zeros((2, 3, 64, 64)),
    ],
    ids=["four channels", "one channel", "not square", "not bytes"],
)
def test_other_pictures_are_refused_in_words(images):
    with pytest.raises(ValueError, match=r"square pictures .* of bytes, red green blue on white; these are"):
        tiny_model("imnet_svr").eval().encode({"image": images}, [0, 1])


def test_the_view_seen_is_the_last_or_the_one_asked_for(shapes):
    views = shapes[0]["views.images"].copy()
    for number in range(len(views)):
        views[number, ..., :3], views[number, ..., 3] = number, 255
    arrays, rng = {"views.images": views}, np.random.default_rng(0)
    assert (tiny_model("imnet_svr").observe(arrays, rng)["image"] == len(views) - 1).all()
    assert (tiny_model("imnet_svr", view=1).observe(arrays, rng)["image"] == 1).all()
    with pytest.raises(Rejected, match="no view 23, only 0 to 3"):
        tiny_model("imnet_svr", view=23).observe(arrays, rng)


@pytest.mark.parametrize("settings", [{}, {"same_view": False}, {"flip": True}])
def test_batches_hold_views_of_their_shapes_and_the_parents_codes(settings, shapes):
    model = tiny_model("imnet_svr", **settings)
    prepared = [model.prepare(arrays) for arrays in shapes]
    data, generator = ResidentData.for_model(model, shapes), torch.Generator().manual_seed(0)
    alike, mirrored = [], []
    for _ in range(12):
        batch = model.draw(data, torch.tensor([1, 0]), generator)
        images = batch["images"][:, 0].numpy()
        first, second = found_in(images[0], prepared[1]["views"]), found_in(images[1], prepared[0]["views"])
        alike.append(first[0] == second[0])
        mirrored.append(first[1] or second[1])
        for row, shape in enumerate((1, 0)):
            np.testing.assert_array_equal(batch["codes"][row].numpy(), prepared[shape]["code"])
    assert all(alike) == settings.get("same_view", True)
    assert any(mirrored) == settings.get("flip", False)


def found_in(image: np.ndarray, views: np.ndarray) -> tuple[int, bool]:
    """Number of the view that the image is, and whether it is mirrored."""
    (found,) = [
        (number, flipped)
        for number, view in enumerate(views)
        for flipped in (False, True)
        if np.array_equal(image, view[:, ::-1] if flipped else view)
    ]
    return found


def test_statistics_can_be_frozen_after_some_passes(shapes):
    model = tiny_model("imnet_svr", frozen_after=1).train()
    batch = model.draw(ResidentData.for_model(model, shapes), torch.tensor([0, 1]), torch.Generator().manual_seed(0))

    def moves_statistics() -> bool:
        before = model.network.bn_0.running_mean.clone()
        model.loss(batch)
        return not torch.equal(model.network.bn_0.running_mean, before)

    assert moves_statistics()
    model.epoch = 2
    assert not moves_statistics()


def test_codes_of_two_shapes_are_learnt_from_their_views(shapes, tmp_path):
    # Views of all kinds in a batch: statistics of one view alone, as the original's, suit no other in evaluation mode.
    model = tiny_model("imnet_svr", 2, same_view=False)
    before = {name: tensor.clone() for name, tensor in model.parent.state_dict().items()}
    data = ResidentData.for_model(model, shapes * 4)
    train(
        model,
        data,
        [],
        TrainingSettings(steps=300, batch_shapes=8, learning_rate=1e-3, schedule="cosine"),
        RuntimeSettings(device="cpu", threads=1, tensorboard=False),
        seed=0,
        state_dir=tmp_path,
        log_dir=None,
    )
    observations = [model.observe(arrays, np.random.default_rng(0))["image"] for arrays in shapes]
    found = model.eval().encode({"image": torch.from_numpy(np.stack(observations))}, [0, 1])["code"]
    wanted = data["code"][:2]
    apart = (found[:, None] - wanted).square().mean(dim=-1)  # of every view from every code
    assert apart[0, 0] < 0.5 * apart[0, 1] and apart[1, 1] < 0.5 * apart[1, 0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.parent.state_dict().items())


def test_a_parent_on_another_grid_is_refused_in_words():
    assert check_parent(ModelSettings(), ParentSettings()) is None
    assert "parent encodes grids of 128" in check_parent(ModelSettings(), ParentSettings(grid=128))
