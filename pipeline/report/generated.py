"""What the report says of generators: how well their new shapes stand for the test shapes, and the first of them.

New shapes have no true shape of their own, so nothing here stands in a table of test shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.arrays import Mesh
from pipeline.report.cells import MISSING, Block, Cell, Column, Table

DISTANCES = {"chamfer": "Chamfer distance", "light_field": "light field distance"}
"""Distance between shapes → its name, in the order of the table."""

DEFINITIONS = (
    "Coverage: share of the test shapes that are the nearest one of some generated shape; 1 is best, near 0 the "
    "generated shapes are all alike.",
    "MMD, minimum matching distance: mean over the test shapes of the distance to the nearest generated shape, raw; "
    "less is better. Values of different distances do not compare.",
    "1-NNA, leave-one-out 1-nearest-neighbour accuracy: share of the shapes of both sets together whose nearest other "
    "shape is of their own set. With sets of equal size 0.5 is best; 1 says that the sets are told apart, less than "
    "0.5 that test shapes are copied. Sets of other sizes move the best value: what sets that cannot be told apart "
    "give stands beside it.",
    "Failed: generated shapes without a surface. They cover nothing and are told apart. More generated shapes raise "
    "coverage and lower MMD, so methods compare at equal counts only.",
    "Chamfer distance: mean squared distances between points on the two surfaces, both directions added. Light field "
    "distance: how much the silhouettes from all sides differ, at the rotation where they fit best.",
)


@dataclass(frozen=True)
class Generated:
    """New shapes of one generator.

    comparisons: distance → coverage, mmd, one_nna, generated, references and failed, as
    `pipeline.evaluation.generators.generator_metrics` gives them; mmd is None where all failed. samples: the first
    shapes, or why there is none.
    """

    method: str
    comparisons: Mapping[str, Mapping[str, Any]]
    samples: Sequence[Mesh | str] = field(default=())


def generated_table(generators: Sequence[Generated]) -> Table:
    """One row per distance and generator; the best of those that share a distance are marked."""
    columns = (
        Column("Method", numeric=False),
        Column("Coverage ↑"),
        Column("MMD ↓"),
        Column("1-NNA"),
        Column("of sets alike", note="the 1-NNA of two sets of these sizes that nothing tells apart; nearest is best"),
        *(Column("Generated"), Column("Test shapes"), Column("Failed")),
    )
    blocks = [_block(name, generators, label) for name, label in DISTANCES.items()]
    return Table(columns, tuple(block for block in blocks if block.rows))


def _block(distance: str, generators: Sequence[Generated], label: str) -> Block:
    measured = [(g.method, g.comparisons[distance]) for g in generators if distance in g.comparisons]
    results = [result for _, result in measured]
    alike = [accuracy_of_sets_alike(r["generated"], r["references"]) for r in results]
    distances = [float("nan") if r["mmd"] is None else r["mmd"] for r in results]
    excess = [abs(r["one_nna"] - a) for r, a in zip(results, alike, strict=True)]
    cells = (
        [Cell(method) for method, _ in measured],
        _compared([r["coverage"] for r in results], [-r["coverage"] for r in results], "{:.3f}".format),
        _compared(distances, distances, four_digits),
        _compared([r["one_nna"] for r in results], excess, "{:.3f}".format),
        [Cell(f"{a:.3f}" if np.isfinite(a) else MISSING) for a in alike],
        *([Cell(f"{r[key]:,}") for r in results] for key in ("generated", "references", "failed")),
    )
    return Block(tuple(zip(*cells, strict=True)), f"By {label}")


def accuracy_of_sets_alike(generated: int, references: int) -> float:
    """Expected 1-NNA of sets of these sizes drawn from one distribution: each other shape is equally likely nearest.

    NaN for a single shape.
    """
    total = generated + references
    pairs = generated * (generated - 1) + references * (references - 1)
    return pairs / (total * (total - 1)) if total > 1 else float("nan")


def four_digits(value: float) -> str:
    """Four significant digits: "0.01010", "2900"."""
    return f"{value:#.4g}".removesuffix(".")


def _compared(values: Sequence[float], losses: Sequence[float], text: Callable[[float], str]) -> list[Cell]:
    """Cells of values; marked are those that print like one of least loss. A value that is not finite is a gap."""
    finite = [(loss, text(value)) for value, loss in zip(values, losses, strict=True) if np.isfinite(value)]
    best = {printed for loss, printed in finite if loss == min(finite)[0]}
    return [Cell(text(v), best=text(v) in best) if np.isfinite(v) else Cell(MISSING) for v in values]
