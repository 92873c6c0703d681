"""How near a closed mesh is to the raw one, and whether it is closed, by means of its own.

Nothing here is what the stages under test use to judge themselves, but for the test of edges and vertices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

FOLLOWED, THICK = 0.006, 2 / 256  # longest edges


def nearness(raw, result, samples: int = 20_000, directions: int = 96) -> dict[str, Any]:
    """How a closed mesh stands to the raw one: lengths in longest edges of the raw box.

    d_in: mean distance from the outer raw surface, those points that see infinity in one of `directions` on either
    side. thick: outer points where along the normal neither the wall nor the gap before it ends within `THICK`; lost:
    those of them farther than `FOLLOWED` from the result; lost_one_sided: the same where only the wall counts.
    """
    import numpy as np
    import trimesh

    vertices, faces = raw[0], raw[1][np.isfinite(raw[0][raw[1]]).all(axis=(1, 2))]
    used = vertices[faces.reshape(-1)]
    centre, extent = (used.min(axis=0) + used.max(axis=0)) / 2, np.ptp(used, axis=0).max()
    points, normals, scene = _surface_points((vertices - centre) / extent, faces, samples)
    outer = _sees_out(scene, points, normals, directions)
    points, normals = points[outer], normals[outer]
    _, _, closed_scene = _surface_points((result[0] - centre) / extent, result[1], 1)
    lost = _tensor_call(closed_scene.compute_distance, points)
    ahead, behind = (_clear(scene, points, side * normals) for side in (1, -1))
    walls = np.where(_sees_side(scene, points, normals, directions), behind, ahead)
    thick, one_sided = (ahead >= THICK) & (behind >= THICK), walls >= THICK
    mesh = trimesh.Trimesh(*result, process=False)
    return {
        "d_in": float(lost.mean()),
        "d_in_99": float(np.quantile(lost, 0.99)),
        "outer": len(points),
        "thick": int(thick.sum()),
        "lost": int((thick & (lost > FOLLOWED)).sum()),
        "lost_one_sided": int((one_sided & (lost > FOLLOWED)).sum()),
        "closed": bool(mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0 and _two_manifold(mesh)),
    }


def _surface_points(vertices, faces, count: int):
    import numpy as np

    from benchmarks import reference_geometry as reference

    points, normals = reference.surface(vertices, faces, count, np.random.default_rng(1))
    return points.astype(np.float64), normals.astype(np.float64), reference._scene(vertices, faces)


def _directions(count: int):
    import numpy as np

    rank = np.arange(count) + 0.5
    height, turn = 1 - 2 * rank / count, np.pi * (1 + 5**0.5) * rank
    ring = np.sqrt(1 - height**2)
    return np.stack([ring * np.cos(turn), ring * np.sin(turn), height], axis=1)


def _sees_out(scene, points, normals, directions: int):
    return _escapes(scene, points, normals, directions) | _escapes(scene, points, -normals, directions)


def _sees_side(scene, points, normals, directions: int):
    """Whether the outside lies on the side of the normal; where it lies on both, that counts."""
    return _escapes(scene, points, normals, directions)


def _escapes(scene, points, normals, directions: int):
    import numpy as np

    free = np.zeros(len(points), bool)
    for view in _directions(directions):
        rows = np.flatnonzero(~free & (normals @ view > 0.1))
        rays = np.concatenate([points[rows] + 1e-4 * normals[rows], np.broadcast_to(view, (len(rows), 3))], axis=1)
        free[rows] = ~_tensor_call(scene.test_occlusions, rays)
    return free


def _clear(scene, points, normals):
    """How far the normals lead before they meet the surface again."""
    import numpy as np

    rays = np.concatenate([points + 1e-5 * normals, normals], axis=1)
    return _tensor_call(scene.cast_rays, rays)["t_hit"].numpy()


def _tensor_call(query: Callable, values):
    import numpy as np
    import open3d as o3d

    answer = query(o3d.core.Tensor.from_numpy(np.ascontiguousarray(values, np.float32)), nthreads=1)
    return answer.numpy() if hasattr(answer, "numpy") else answer


def _two_manifold(mesh) -> bool:
    """Whether the faces round every vertex hang together by edges at it, and no edge has more than two."""
    import numpy as np

    from pipeline.arrays import Mesh
    from pipeline.geometry.quality import edge_counts, nonmanifold_vertices

    checked = Mesh(np.asarray(mesh.vertices), np.asarray(mesh.faces))
    return edge_counts(checked)["nonmanifold"] == 0 and nonmanifold_vertices(checked) == 0
