"""Signed distances at points sampled by other stages.

By default the exact distance to the watertight mesh with the sign of its inside test, and no point left out. DeepSDF's
own program instead measures to rendered pixels, lets the nearest ones vote on the sign and drops disputed points;
`method: votes` does as it did (sheet deepsdf.md 2.2 and 2.4).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from pipeline.settings import Settings
from pipeline.storage_settings import StorageSettings

Share = Annotated[float, Field(ge=0, le=1)]


class VoteSettings(Settings):
    """Signs by the votes of points seen from outside. The defaults are DeepSDF's, in canonical units."""

    views: PositiveInt = 100
    """Parallel views from all around."""

    pixels: PositiveInt = 400
    """Along each edge of a view; the farthest points of a shape are 388 of 400 apart. Time and memory grow with the
    number of pixels: a shape with half a million samples takes about a minute and up to 1.7 GB at 400."""

    neighbours: PositiveInt = 11
    """Nearest seen points that vote; where they disagree the sample is dropped."""

    plane_within: PositiveFloat = 0.0630744
    """Nearer than this to a seen point the distance is that to its plane, else to the point. DeepSDF: the wider of the
    two spreads near the surface, .0707 in its own frame; .199459 is that of its test samples."""

    max_wrong: Share | None = 0.02
    """Largest share of seen points on faces that were seen from both sides before, above which the shape is rejected;
    null: none is. DeepSDF's program only prints it, and its authors published lists of valid shapes instead."""

    max_bad: Share | None = 0.03
    """Largest share of faces seen from both sides, likewise."""


class SdfSettings(Settings):
    """Signed distances of the sampled point sets."""

    method: Literal["exact", "votes"] = "exact"
    """exact: distance to the mesh, sign of its inside test. votes: as DeepSDF's program; disputed points are marked,
    and what is not seen from outside, such as a cavity, does not exist."""

    votes: VoteSettings = VoteSettings()
    """Of the method votes."""

    storage: StorageSettings = StorageSettings()
    """Precision of the stored distances."""


from collections.abc import Mapping

import numpy as np

from pipeline.arrays import Mesh, Product, Rejected
from pipeline.samples.solid import queryable, share, significant
from pipeline.samples.visible import VisibleCloud, visible_cloud, voted_distance
from pipeline.storage import bits_encoding, rounded

LEAST = 2.0**-24  # the positive number nearest to zero in float16


def compute_sdf(
    mesh: Mesh,
    sets: Mapping[str, np.ndarray],
    settings: SdfSettings,
    labels: Mapping[str, np.ndarray] | None = None,
) -> Product:
    """Signed distance of each named set of points (n, 3) to the mesh: {name: (n,) float32}, negative inside.

    The points are the stored ones of the sampling stages, and row i belongs to their row i. labels: their occupancies
    (n,) bool, with which the figures compare the signs. By votes there is also {"kept.<name>": (n,) bool}: rows that
    are not kept have the distance 0 and belong in no training.

    The exact method needs a watertight mesh. Raises Rejected where its area is zero, and by votes where too much of it
    is seen from both sides or no point is kept.
    """
    if settings.method == "votes":
        return _voted(mesh, sets, settings, labels)
    scene = queryable(mesh)
    encoding = (settings.storage.sdf,)
    value = {name: rounded(_off_zero(scene.signed_distance(points)), encoding) for name, points in sets.items()}
    figures = {"inside_share": {name: share(distances < 0) for name, distances in value.items()}}
    if labels is not None:
        figures["sign_agreement"] = {name: share((value[name] < 0) == labels[name]) for name in value}
    return Product(value, figures=figures, encoding=dict.fromkeys(value, encoding))


def _voted(
    mesh: Mesh,
    sets: Mapping[str, np.ndarray],
    settings: SdfSettings,
    labels: Mapping[str, np.ndarray] | None,
) -> Product:
    """`compute_sdf` by votes; shares in the figures are of the points kept, but for `dropped_share`."""
    votes, encoding = settings.votes, (settings.storage.sdf,)
    cloud = visible_cloud(mesh, votes.views, votes.pixels)
    _require_one_side(cloud, votes)
    found = {name: voted_distance(cloud, points, votes.neighbours, votes.plane_within) for name, points in sets.items()}
    value = {name: rounded(_off_zero(distances), encoding) for name, (distances, _) in found.items()}
    kept = {name: agreed for name, (_, agreed) in found.items()}
    if sets and not any(flags.any() for flags in kept.values()):
        raise Rejected("the votes on the sign disagree at every point: the surface has no inside that is seen as such")
    figures = {
        "inside_share": {name: share(value[name][flags] < 0) for name, flags in kept.items()},
        "dropped_share": {name: share(~flags) for name, flags in kept.items()},
        "wrong_share": significant(cloud.wrong_share),
        "bad_share": significant(cloud.bad_share),
    }
    if labels is not None:
        figures["sign_agreement"] = {n: share(((value[n] < 0) == labels[n])[flags]) for n, flags in kept.items()}
    marks = {f"kept.{name}": flags for name, flags in kept.items()}
    encodings = {**dict.fromkeys(value, encoding), **{name: bits_encoding(flags) for name, flags in marks.items()}}
    return Product({**value, **marks}, figures=figures, encoding=encodings)


def _require_one_side(cloud: VisibleCloud, votes: VoteSettings) -> None:
    """Rejected where more of the surface than allowed is seen from both sides, so that it has no inside."""
    for number, bound, what, key in (
        (cloud.wrong_share, votes.max_wrong, "of what is seen lies on faces", "max_wrong"),
        (cloud.bad_share, votes.max_bad, "of the faces are", "max_bad"),
    ):
        if bound is not None and number > bound:
            raise Rejected(
                f"{number:.1%} {what} seen from both sides, more than votes.{key} = {bound:g} allows: the surface is "
                f"open or not oriented"
            )


def _off_zero(distances: np.ndarray) -> np.ndarray:
    """Distances too small for float16 moved to its least number, so that rounding keeps every sign."""
    tiny = (np.abs(distances) < LEAST) & (distances != 0)
    return np.where(tiny, np.copysign(np.float32(LEAST), distances), distances)
