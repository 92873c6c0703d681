"""Answers of the originals' own code, run with weights and observations that a formula gives.

For each preset the original network was built with the original's own configuration, its state dict filled by
`closed_form.filled`, and asked in evaluation mode. So these numbers hold for any exact re-implementation, and need
nothing of the original. The repositories and revisions stand above their rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.models import registry
from pipeline.models.contract import build_model
from pipeline.models.weights import PRESETS, load_published
from pipeline.overlays import read_yaml
from tests.models.closed_form import filled, numbers

SHAPES, QUERIES = 2, 4


def cloud(points: int) -> Tensor:
    """Clouds off the centre, of three different extents."""
    return numbers((SHAPES, points, 3), 1_100_000_000) * torch.tensor([0.5, 0.3, 0.4]) + torch.tensor(
        [0.02, -0.06, 0.04]
    )


def voxels(edge: int) -> Tensor:
    return (numbers((SHAPES, edge, edge, edge), 1_200_000_000) > 0.2).float()


def picture(edge: int) -> Tensor:
    return 0.5 + 0.5 * numbers((SHAPES, 3, edge, edge), 1_300_000_000)


def codes(length: int) -> Tensor:
    return numbers((SHAPES, length), 1_400_000_000)


@dataclass
class Case:
    """What the original answered, 4 queries of each of 2 shapes, and what it was asked.

    half: largest coordinate of the queries. gain, start: of `closed_form.filled`. settings: over the preset's.
    """

    preset: str
    answers: tuple[float, ...]
    observation: Tensor | None
    half: float = 0.6
    gain: float = 1.0
    start: int = 0
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.preset, *(f"{name}={value}" for name, value in self.settings.items())])


CASES = [
    # autonomousvision/occupancy_networks 406f794
    Case(
        "onet-pointcloud",
        (-0.416907, -0.383348, -0.73705, -0.470445, -0.609706, -0.345173, -0.534016, -0.319516),
        cloud(50),
    ),
    Case(
        "onet-image",
        (-0.457881, -0.439939, -0.415137, -0.501889, -0.391258, -0.407887, -0.395222, -0.448615),
        picture(64),
        gain=0.7,
    ),
    Case(
        "onet-voxel",
        (-0.492464, -0.420837, -0.433473, -0.349592, -0.405454, -0.467215, -0.499674, -0.40815),
        voxels(32),
    ),
    Case(
        "onet-unconditional",
        (-0.0321616, -0.512729, -0.119006, -0.985277, -0.796124, -1.24478, -0.923765, -1.22589),
        codes(128),
    ),
    # autonomousvision/convolutional_occupancy_networks 838bea5; torch_scatter by its definition
    Case(
        "convonet-1plane",
        (-0.522811, 0.165066, -1.28668, -0.293951, -1.29218, -0.248161, -1.26225, -0.346275),
        cloud(300),
    ),
    Case(
        "convonet-3plane", (-3.02392, -0.848613, -5.17414, -1.79413, -3.66522, -4.81883, -4.45079, -5.57869), cloud(300)
    ),
    Case(
        "convonet-grid32",
        (0.509926, 1.83334, -0.0557002, -0.18934, -1.08401, -0.0241344, -0.675936, 0.641254),
        cloud(300),
    ),
    Case(
        "convonet-voxels",
        (-0.345078, -0.639661, -0.828762, -0.619641, -0.880726, -0.321047, -0.668697, -0.614575),
        voxels(32),
    ),
    # jchibane/if-net 81c3068, whose grids are sampled in two ways; zeros around its convolutions, as torch 1.1 had them
    Case(
        "ifnet-points",
        (0.158669, 0.189494, 0.222856, 0.209975, 0.188965, 0.170745, 0.205258, 0.216345),
        voxels(32),
        half=1.1,
        settings={"align_corners": True},
    ),
    Case(
        "ifnet-points",
        (0.14766, 0.169832, 0.204578, 0.190343, 0.19068, 0.165414, 0.200151, 0.217182),
        voxels(32),
        half=1.1,
        settings={"align_corners": False},
    ),
    Case(
        "ifnet-vox32",
        (-0.149277, -0.128167, -0.17542, -0.185894, -0.131437, -0.157453, -0.202121, -0.144795),
        voxels(32),
        half=1.1,
        settings={"align_corners": True},
    ),
    Case(
        "ifnet-vox32",
        (-0.180801, -0.157463, -0.194295, -0.149323, -0.100944, -0.140183, -0.184044, -0.14054),
        voxels(32),
        half=1.1,
        settings={"align_corners": False},
    ),
    # SimonGiebenhain/AIR-Nets e828cd8; farthest points by its CUDA kernel, thread by thread
    Case(
        "airnet-300",
        (8.20193, 8.23813, 8.01177, 7.741, 7.92908, 8.29869, 8.21757, 7.99943),
        cloud(300),
        half=0.5,
        gain=0.7,
    ),
    Case(
        "airnet-300-less-memory",
        (-7.59978, -7.54575, -7.69732, -8.01339, -7.67121, -7.47798, -7.59323, -7.73197),
        cloud(300),
        half=0.5,
        gain=0.7,
    ),
    Case(
        "airnet-interp",
        (-4.91328, -4.24955, -4.45469, -4.68678, -4.44349, -4.64743, -4.87216, -4.60529),
        cloud(300),
        half=0.5,
        gain=0.7,
    ),
    Case(
        "airnet-pointnet2",
        (0.650805, 0.619155, 0.564534, 0.667839, 0.597598, 0.679588, 0.730372, 0.605788),
        cloud(300),
        half=0.5,
        gain=0.7,
    ),
    Case(
        "airnet-pointnet-interp",
        (-1.15492, -1.24509, -1.13264, -1.01781, -1.14205, -1.20648, -1.16965, -1.16301),
        cloud(300),
        half=0.5,
        gain=0.7,
    ),
    Case(
        "airnet-3000",
        (2.66738, 2.57112, 2.61161, 2.6849, 2.62035, 2.54283, 2.64276, 2.61718),
        cloud(600),
        half=0.5,
        gain=0.7,
    ),
    # facebookresearch/DeepSDF 48c19b8
    Case(
        "deepsdf",
        (-0.138495, -0.14528, -0.114431, -0.130336, -0.0201952, -0.0277914, 0.00174372, -0.0327764),
        codes(256),
        half=1.0,
    ),
    Case(
        "deepsdf-layernorm",
        (0.37612, 0.28562, 0.224652, 0.342369, -0.132112, -0.0452101, -0.19829, -0.0725179),
        codes(256),
        half=1.0,
    ),
    # czq142857/IM-NET-pytorch ab1c1f2
    Case(
        "imnet-ae",
        (1.01574, 1.02053, 1.01631, 1.01561, -0.00350531, 0.0517708, 0.0395689, -0.00142505),
        voxels(64),
        half=0.5,
        gain=1.8,
        start=80_000_000,
    ),
    # mabaorui/NeuralPull-Pytorch f4645aa
    Case(
        "neuralpull-port",
        (-0.0080101, -0.00247315, 0.0122233, -0.00491734, 0.0135147, 0.00236842, 0.00046517, 0.00135161),
        None,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_published_weights_answer_as_in_the_originals_code(case):
    network = load_published(case.preset, filled(_tensors(case), case.gain, case.start), **case.settings).network
    queries = case.half * numbers((SHAPES, QUERIES, 3), 1_000_000_000)
    with torch.no_grad():
        answers = network(queries, *([] if case.observation is None else [case.observation]))
    expected = torch.tensor(case.answers).view(SHAPES, QUERIES)
    assert (answers - expected).abs().max() < 2e-5 * expected.abs().max()


def _tensors(case: Case) -> dict[str, Tensor]:
    """Names and shapes of the preset's tensors."""
    (block,) = read_yaml(PRESETS / f"{case.preset}.yaml")["experiments"]
    module = registry.load(block["method"])
    settings = module.ModelSettings(**{**block.get("model", {}), **case.settings})
    return build_model(block["method"], settings, module.InferenceSettings(), 0, 0).network.state_dict()
