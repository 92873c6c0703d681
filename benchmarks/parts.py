"""What closing a mesh of thousands of closed parts costs, which grows with the parts and not with their pairs.

    python -m benchmarks.parts [--edges 15 30]

A lattice of n^3 boxes apart, taken by `keep`; CPU-seconds of the process, one thread.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from benchmarks.measure import table
from pipeline.arrays import Mesh
from pipeline.meshes.watertight import WatertightSettings, make_watertight

TARGET = 20.0  # s for 27,000 parts
CORNERS = np.indices((2, 2, 2)).reshape(3, -1).T * 0.6
QUADS = np.array([(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)])
TRIANGLES = np.concatenate([QUADS[:, [0, 1, 2]], QUADS[:, [0, 2, 3]]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--edges", type=int, nargs="+", default=[15, 30], help="parts along each edge of the lattice")
    options = parser.parse_args()
    seconds(2)  # imports
    rows = [(f"{edge**3:,}", f"{seconds(edge):.1f}") for edge in options.edges]
    print(table(("parts", "s"), rows))
    print(f"target: 27,000 parts under {TARGET:.0f} s")


def seconds(edge: int) -> float:
    start = time.process_time()
    product = make_watertight(lattice(edge), WatertightSettings())
    assert product.figures["link"] == "keep" and product.figures["components"] == edge**3
    return time.process_time() - start


def lattice(edge: int) -> Mesh:
    places = np.indices((edge,) * 3).reshape(3, -1).T
    vertices = places[:, None] + CORNERS
    faces = np.arange(len(places))[:, None, None] * len(CORNERS) + TRIANGLES
    return Mesh(vertices.reshape(-1, 3), faces.reshape(-1, 3))


if __name__ == "__main__":
    main()
