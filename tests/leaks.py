"""Ray casting that leaks: a seeded share of all rays misses what it would meet first, as rays do past edges.

How many rays leak, and which, differs between processors; what is decided by rays must not.
"""

from __future__ import annotations

import numpy as np
import pytest

SHARES = (0.0, 0.001, 0.003, 0.01)
"""Of the rays that leak; real scenes leak far less, 1e-5 and under."""

BEYOND = 1e-6  # lengths of the direction; how far behind its first hit a ray that leaked goes on


def leaking(monkeypatch: pytest.MonkeyPatch, share: float, seed: int = 0) -> None:
    """Let that share of the rays of every scene built from now on leak; each scene draws its own."""
    import open3d as o3d

    real = o3d.t.geometry.RaycastingScene

    def scene(**options) -> _LeakingScene:
        return _LeakingScene(real(**options), share, seed)

    monkeypatch.setattr(o3d.t.geometry, "RaycastingScene", scene)


class _LeakingScene:
    """Answers as `open3d.t.geometry.RaycastingScene`. What casts rays inside the library is refused: it cannot leak."""

    def __init__(self, scene, share: float, seed: int) -> None:
        self.scene = scene
        self.share = share
        self.rng = np.random.default_rng(seed)
        self.add_triangles = scene.add_triangles
        self.compute_distance = scene.compute_distance
        self.compute_closest_points = scene.compute_closest_points

    def cast_rays(self, rays, nthreads: int = 0) -> dict:
        """The first hits; of rays that leak the second ones."""
        hits = self.scene.cast_rays(rays, nthreads=nthreads)
        leaks = self._leaks(np.isfinite(hits["t_hit"].numpy()))
        if len(leaks) == 0:
            return hits
        passed = hits["t_hit"].numpy()[leaks] + np.float32(BEYOND)
        onward = rays.numpy()[leaks]
        onward[:, :3] += passed[:, None] * onward[:, 3:]
        second = self.scene.cast_rays(_tensor(onward), nthreads=nthreads)
        for name, values in hits.items():
            values = values.numpy().copy()
            values[leaks] = second[name].numpy()
            hits[name] = _tensor(values)
        reached = hits["t_hit"].numpy().copy()
        reached[leaks] += passed
        hits["t_hit"] = _tensor(reached)
        return hits

    def test_occlusions(self, rays, nthreads: int = 0):
        """Whether a ray meets anything; rays that leak have to meet two."""
        return _tensor(np.isfinite(self.cast_rays(rays, nthreads)["t_hit"].numpy()))

    def count_intersections(self, rays, nthreads: int = 0):
        """How often a ray meets the surface; once less for rays that leak."""
        counts = self.scene.count_intersections(rays, nthreads=nthreads).numpy().copy()
        counts[self._leaks(counts > 0)] -= 1
        return _tensor(counts)

    def _leaks(self, meets: np.ndarray) -> np.ndarray:
        return np.flatnonzero(meets & (self.rng.random(len(meets)) < self.share))


def _tensor(values: np.ndarray):
    import open3d as o3d

    return o3d.core.Tensor.from_numpy(np.ascontiguousarray(values))
