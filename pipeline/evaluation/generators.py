"""How well generated shapes stand for a set of references: coverage, minimum matching distance, 1-NNA.

Over any distance between shapes; here the Chamfer distance of surface samples and the light field distance.

coverage    share of the references that are the nearest one of some generated shape; 1 is best, 0 all alike
mmd         mean over the references of the distance to the nearest generated shape; lower is better
one_nna     share of all shapes, both sets together, whose nearest other shape is of their own set (leave-one-out
            1-nearest-neighbour accuracy); 0.5 is best, 1 says the sets are told apart, below 0.5 copies

Coverage and MMD: Achlioptas et al., Learning representations and generative models for 3D point clouds (ICML 2018);
with light field distances in IM-GAN and GET3D (five generated shapes per reference). 1-NNA: Lopez-Paz and Oquab (ICLR
2017), for shapes in PointFlow (Yang et al., ICCV 2019), where both sets have one size; others move the best value.
"""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from pipeline.settings import Settings


class GeneratorSettings(Settings):
    """New shapes of a generator, and how they are compared with the test shapes."""

    count: PositiveInt = 1000
    """Shapes drawn; more of them leave the others as they are."""

    block: PositiveInt = 250
    """Shapes per job."""

    points: PositiveInt = 2048
    """Points drawn on each mesh for the Chamfer distance, uniform by area."""

    distances: tuple[Literal["chamfer", "light_field"], ...] = ("chamfer", "light_field")
    """Distances to report by."""

    variant: Literal["full", "pip"] = "full"
    """Which light field distance, as `light_field.light_field_distance`."""


from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.arrays import Mesh
from pipeline.evaluation.light_field import light_field_descriptor, light_field_distances
from pipeline.geometry.sampling import points_on_surface

FAILED = float("inf")  # the distance of a generated shape without a surface to any other shape


def compare_generated(
    generated: Sequence[Mesh | None], references: Sequence[Mesh], settings: GeneratorSettings, rng: np.random.Generator
) -> dict[str, dict[str, Any]]:
    """The metrics of `generator_metrics` for each distance of the settings, of meshes in memory.

    For use from Python; the workflow keeps clouds and descriptors by shape and compares those.

    generated: None where no mesh came out; such a shape covers nothing and is told apart from the references. All in
    one frame. Raises ValueError without references or generated shapes and for a mesh without area.
    """
    result = {}
    if "chamfer" in settings.distances:
        clouds = surface_clouds(generated, settings.points, rng)
        others = surface_clouds(references, settings.points, rng)
        result["chamfer"] = compare_clouds(clouds, others)
    if "light_field" in settings.distances:
        ours, theirs = ([None if m is None else light_field_descriptor(m) for m in s] for s in (generated, references))
        result["light_field"] = compare_descriptors(ours, theirs, settings.variant)
    return result


def compare_clouds(generated: Sequence[np.ndarray | None], references: Sequence[np.ndarray]) -> dict[str, Any]:
    """The metrics by Chamfer distance of surface samples (n, 3); None for a shape that failed."""
    distances = chamfer_distances(generated, references), chamfer_distances(generated), chamfer_distances(references)
    return generator_metrics(*distances)


def compare_descriptors(
    generated: Sequence[np.ndarray | None], references: Sequence[np.ndarray], variant: Literal["full", "pip"] = "full"
) -> dict[str, Any]:
    """The metrics by light field distance of `light_field_descriptor`s; None for a shape that failed."""
    pairs = ((generated, references), (generated, generated), (references, references))
    return generator_metrics(*(_light_field(*pair, variant) for pair in pairs))


def generator_metrics(
    distances_generated_reference: np.ndarray, distances_generated: np.ndarray, distances_reference: np.ndarray
) -> dict[str, Any]:
    """coverage, mmd and one_nna from distances: generated to references (g, r), generated (g, g), references (r, r).

    A generated shape that failed has infinite distances. Own distances, on the diagonals, are not looked at. In 1-NNA a
    shape equally near to both sets counts half. Also gives the numbers generated, references and failed. Raises
    ValueError for shapes that do not fit, distances that are NaN or negative, and empty sets.
    """
    cross, own, other = (
        np.asarray(d, float) for d in (distances_generated_reference, distances_generated, distances_reference)
    )
    _require_fit(cross, own, other)
    failed = np.isinf(cross).all(axis=1)
    return {
        "coverage": len(np.unique(cross[~failed].argmin(axis=1))) / len(other),
        "mmd": float(cross.min(axis=0).mean()),
        "one_nna": _nearest_neighbour_accuracy(cross, own, other),
        "generated": len(own),
        "references": len(other),
        "failed": int(failed.sum()),
    }


def _require_fit(cross: np.ndarray, own: np.ndarray, other: np.ndarray) -> None:
    generated, references = len(own), len(other)
    shapes = (cross.shape, own.shape, other.shape)
    if shapes != ((generated, references), (generated, generated), (references, references)):
        raise ValueError(f"distances must be (g, r), (g, g) and (r, r), got {shapes[0]}, {shapes[1]} and {shapes[2]}")
    if not generated or not references:
        raise ValueError(f"there are {generated} generated shapes and {references} references; both are needed")
    for name, matrix in (("generated to references", cross), ("generated", own), ("references", other)):
        apart = matrix[~np.eye(len(matrix), dtype=bool)] if matrix is not cross else matrix
        if not (apart >= 0).all():
            raise ValueError(f"the distances {name} hold values that are NaN or negative")


def _nearest_neighbour_accuracy(cross: np.ndarray, own: np.ndarray, other: np.ndarray) -> float:
    correct = 0.0
    for within, between in ((own, cross), (other, cross.T)):
        alone = np.where(np.eye(len(within), dtype=bool), np.inf, within).min(axis=1)
        across = between.min(axis=1)
        failed = np.isinf(across) & np.isinf(alone)  # a failed shape is told apart
        correct += np.sum(alone < across) + 0.5 * np.sum((alone == across) & ~failed) + np.sum(failed)
    return float(correct / (len(own) + len(other)))


def surface_clouds(meshes: Sequence[Mesh | None], count: int, rng: np.random.Generator) -> list[np.ndarray | None]:
    """`count` points (count, 3) on each mesh, uniform by area; None for None."""
    return [None if mesh is None else points_on_surface(mesh, count, rng)[0] for mesh in meshes]


def chamfer_distances(
    clouds: Sequence[np.ndarray | None], others: Sequence[np.ndarray | None] | None = None
) -> np.ndarray:
    """Chamfer distances (n, m) of point clouds (k, 3): the mean squares of nearest distances, both directions added.

    Without others: of the clouds among themselves, each pair once. Infinite where a cloud is None.
    """
    from scipy.spatial import cKDTree

    trees = [None if cloud is None else cKDTree(cloud) for cloud in clouds]
    if others is None:
        matrix = np.zeros((len(trees), len(trees)))
        for i, tree in enumerate(trees):
            for j in range(i):
                matrix[i, j] = matrix[j, i] = _chamfer(tree, trees[j])
        return matrix
    other_trees = [None if cloud is None else cKDTree(cloud) for cloud in others]
    distances = [[_chamfer(tree, other) for other in other_trees] for tree in trees]
    return np.array(distances, float).reshape(len(trees), len(other_trees))


def _chamfer(tree, other) -> float:
    """Between two kd-trees."""
    if tree is None or other is None:
        return FAILED
    return float((other.query(tree.data)[0] ** 2).mean() + (tree.query(other.data)[0] ** 2).mean())


def _light_field(
    first: Sequence[np.ndarray | None], second: Sequence[np.ndarray | None], variant: Literal["full", "pip"]
) -> np.ndarray:
    """Light field distances (n, m) float64 of descriptors, infinite where one is None."""
    matrix = np.full((len(first), len(second)), FAILED)
    rows, columns = ([k for k, d in enumerate(side) if d is not None] for side in (first, second))
    if rows and columns:
        known = light_field_distances(
            np.stack([first[k] for k in rows]), np.stack([second[k] for k in columns]), variant
        )
        matrix[np.ix_(rows, columns)] = known
    return matrix
