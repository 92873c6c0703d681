"""What is odd about a pair of meshes that was measured none the less, in words."""

from __future__ import annotations

from typing import Any

from pipeline.evaluation.frame import COMMON, longest_edge, reach
from pipeline.evaluation.measure import Measurement
from pipeline.evaluation.profiles import Profile
from pipeline.geometry.clean import merged
from pipeline.geometry.quality import is_watertight

TESTS = {"parity": "ray parity", "waterproof": "implicit waterproofing"}

WORTH_A_WORD = 1e-3
"""Share of a volume; less moves an IoU by less than the noise of its points."""

MOST_APART = 10.0
"""Ratio of longest edges above which two meshes hardly stand in one frame."""

SMALLEST = 0.25
"""Longest edge of a reference below which it is hardly in the canonical frame, where it has 1."""


def remarks(measurement: Measurement, facts: dict[str, Any], values: dict[str, Any], profile: Profile) -> str:
    """All remarks on one row, joined by semicolons; "" where nothing is odd.

    facts, values: the parts of the row that all profiles share, and the profile's own.
    """
    found = _of_the_prediction(facts) + _of_the_frame(measurement, profile)
    if values["reference_has_volume"] is False:
        found.append(f"{_without_volume(measurement, profile)}, so IoU is undefined")
    elif profile.volume:
        if not facts["predicted_watertight"]:
            found.append(f"IoU is by {TESTS[profile.volume.inside_test]}")
        found += _of_overlaps(measurement, profile)
    return "; ".join(found)


def _of_the_prediction(facts: dict[str, Any]) -> list[str]:
    if not facts["predicted_watertight"]:
        return ["the mesh is not watertight"]
    return ["the mesh is inside out"] if facts["predicted_volume"] < 0 else []


def _of_the_frame(measurement: Measurement, profile: Profile) -> list[str]:
    """Where the boxes of the two and the cube of the IoU do not fit each other."""
    predicted = measurement.predicted.bounds
    reference = measurement.reference.bounds
    cube = measurement.cube(profile)
    found = []
    if cube is not None and cube.left_by(predicted):
        found.append(f"the mesh leaves {cube} of the IoU, and what lies beyond counts nowhere: {reach(predicted)}")
    if cube is not None and not measurement.beyond(profile) and cube.left_by(reference):
        found.append(f"the reference leaves {cube} of the IoU, and what lies beyond counts nowhere: {reach(reference)}")
    edge = longest_edge(reference)
    if COMMON.left_by(reference) or edge < SMALLEST:
        found.append(f"the reference's longest edge is {edge:.4g}, and 1 in the frame that F-scores are meant for")
    ratio = longest_edge(predicted) / edge if edge > 0 else 1.0  # a reference may be a few stored samples
    if not 1 / MOST_APART <= ratio <= MOST_APART:
        found.append(f"the mesh's longest edge is {ratio:.4g} times the reference's; are both in one frame?")
    return found


def _without_volume(measurement: Measurement, profile: Profile) -> str:
    """Why no point of the IoU lies inside the reference."""
    mesh = measurement.reference.mesh
    if measurement.beyond(profile):
        return f"the reference leaves {measurement.cube(profile)} of the IoU ({reach(measurement.reference.bounds)})"
    if mesh is not None and is_watertight(merged(mesh)):
        return "no point of the IoU lies inside the reference"
    return "the reference has no volume"


def _of_overlaps(measurement: Measurement, profile: Profile) -> list[str]:
    """Parts that overlap, which parity takes for the outside."""
    found = []
    test = TESTS[profile.volume.inside_test]
    for whose, share in zip(("the mesh", "the reference"), measurement.overlaps(profile), strict=True):
        if share > WORTH_A_WORD:
            found.append(
                f"closed parts of {whose} overlap: {share:.1%} of what they enclose lies in two, "
                f"which {test} counts as outside"
            )
    return found
