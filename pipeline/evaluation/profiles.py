"""Evaluation profiles: whose protocol a number follows.

A row holds raw values in canonical units whatever the profile; a profile says how they were taken (its protocol), which
of them its paper reports, and how the paper prints and averages them.

The originals load their points as float16 and shift them by N(0, 1e-4^2) to break ties. Stored labels here belong to
the stored coordinates exactly, so no profile shifts them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

ProfileName = Literal["onet", "convonet"]


@dataclass(frozen=True)
class Protocol:
    """What decides a raw value. Profiles with equal protocols share one evaluation of a mesh."""

    frame: Literal["unit_cube"]
    """unit_cube: the canonical frame, longest edge of the shape's box 1, centred."""
    predicted_samples: int
    """Points drawn on the predicted mesh, uniform by area."""
    reference_samples: int
    """Points on the reference surface."""
    reference_source: Literal["stored"]
    """stored: the surface samples of the data stages, the same for all methods."""
    iou_points: int
    """Points on which IoU is counted."""
    iou_box: float
    """Edge of the centred cube in which they are uniform."""
    iou_source: Literal["stored"]
    """stored: the labelled volume samples of the data stages."""
    inside_test: Literal["parity"]
    """parity: as `evaluation.inside`, crossings above and below along z both odd."""
    absolute_normals: bool
    """Whether normals count as lines, |cosine|, so that winding does not matter."""


@dataclass(frozen=True)
class Profile:
    """One paper's evaluation."""

    paper: str
    """Where it is defined."""
    protocol: Protocol
    """How values are taken."""
    metrics: tuple[str, ...]
    """The row keys it reports, in its order."""
    mean: Literal["macro", "micro"]
    """The mean it prints: macro is the unweighted mean of category means, micro the mean of all shapes."""
    failures: Literal["dropped"]
    """What its own script does with shapes that failed; the tables here show means with them dropped and penalised."""
    print_scale: dict[str, float] = field(default_factory=dict)
    """Factors applied when printing, 1 where not named; files hold raw values."""


ONET_PROTOCOL = Protocol(
    frame="unit_cube",
    predicted_samples=100_000,
    reference_samples=100_000,
    reference_source="stored",
    iou_points=100_000,
    iou_box=1.1,
    iou_source="stored",
    inside_test="parity",
    absolute_normals=True,
)

PROFILES: dict[ProfileName, Profile] = {
    "onet": Profile(
        paper="Occupancy Networks (Mescheder et al., CVPR 2019), tables 1 to 3; eval_meshes",
        protocol=ONET_PROTOCOL,
        metrics=("iou", "chamfer_l1", "normal_consistency", "chamfer_l2", "accuracy", "completeness"),
        mean="macro",
        failures="dropped",
        # The papers' unit of length is a tenth of the longest edge.
        print_scale={"chamfer_l1": 10.0, "accuracy": 10.0, "completeness": 10.0},
    ),
    "convonet": Profile(
        paper="Convolutional Occupancy Networks (Peng et al., ECCV 2020), tables 1 and 2; eval_meshes",
        protocol=ONET_PROTOCOL,
        metrics=("iou", "chamfer_l1", "normal_consistency", "f_0.01", "f_0.015", "f_0.02"),
        mean="macro",
        failures="dropped",
        print_scale={"chamfer_l1": 10.0},
    ),
}


def profile_named(name: str) -> Profile:
    """The profile of that name. Raises ValueError that names the nearest one."""
    if name not in PROFILES:
        near = get_close_matches(name, PROFILES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"there is no evaluation profile {name!r}; there are {', '.join(PROFILES)}{hint}")
    return PROFILES[name]


def shared_protocol(names: Iterable[str]) -> Protocol:
    """The one protocol of several profiles. Raises ValueError where they need different evaluations."""
    protocols = {name: profile_named(name).protocol for name in names}
    first, *others = protocols.values()
    if any(other != first for other in others):
        raise ValueError(f"profiles {', '.join(protocols)} take their values in different ways; evaluate them apart")
    return first
