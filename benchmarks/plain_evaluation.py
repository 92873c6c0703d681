"""The evaluation protocols as one would write them with trimesh and scipy: what ours is compared with.

The plain reference of the ratios in `benchmarks.evaluation`, for ONet's and AIR-Nets' evaluators: samples by trimesh,
k-d trees by scipy with its defaults, inside by parity along z with a loop over the faces.
It is written for plainness, not for speed, and gives the numbers that ours must agree with.
"""

from __future__ import annotations

import numpy as np
import trimesh
from scipy.spatial import cKDTree


def evaluate(predicted: trimesh.Trimesh, reference: trimesh.Trimesh, points: int, box: float, seed: int) -> dict:
    """IoU, Chamfer distances, normal consistency and F-scores of two meshes from fresh samples, 100,000 a side."""
    rng = np.random.default_rng(seed)
    samples, faces = trimesh.sample.sample_surface(predicted, 100_000, seed=seed)
    truth, truth_faces = trimesh.sample.sample_surface(reference, 100_000, seed=seed + 1)
    accuracy, at_truth = cKDTree(truth).query(samples)
    completeness, at_sample = cKDTree(samples).query(truth)
    normals, truth_normals = predicted.face_normals[faces], reference.face_normals[truth_faces]
    consistency = (
        np.abs((normals * truth_normals[at_truth]).sum(axis=1)).mean()
        + np.abs((truth_normals * normals[at_sample]).sum(axis=1)).mean()
    ) / 2
    row = {
        "chamfer_l1": (accuracy.mean() + completeness.mean()) / 2,
        "chamfer_l2": ((accuracy**2).mean() + (completeness**2).mean()) / 2,
        "normal_consistency": consistency,
    }
    for threshold in (0.005, 0.01, 0.015, 0.02):
        precision, recall = (accuracy <= threshold).mean(), (completeness <= threshold).mean()
        total = precision + recall
        row[f"f_{threshold:g}"] = 2 * precision * recall / total if total else 0.0
    asked = (rng.random((points, 3)) - 0.5) * box
    a, b = inside(predicted, asked), inside(reference, asked)
    row["iou"] = (a & b).sum() / (a | b).sum()
    return row


def inside(mesh: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """Parity along z: odd numbers of faces above and below. Points are sorted by x: a face looks at a run of them."""
    order = np.argsort(points[:, 0])
    x, y, z = points[order].T
    above, below = np.zeros(len(points), int), np.zeros(len(points), int)
    low, high = mesh.triangles.min(axis=1), mesh.triangles.max(axis=1)
    begin, end = np.searchsorted(x, low[:, 0]), np.searchsorted(x, high[:, 0])
    for face, (first, last) in enumerate(zip(begin, end, strict=True)):
        near = first + np.flatnonzero((y[first:last] > low[face, 1]) & (y[first:last] < high[face, 1]))
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = mesh.triangles[face]
        area = (ax - cx) * (by - cy) - (bx - cx) * (ay - cy)
        if area == 0 or len(near) == 0:
            continue
        u = ((x[near] - cx) * (by - cy) - (bx - cx) * (y[near] - cy)) / area
        v = ((ax - cx) * (y[near] - cy) - (x[near] - cx) * (ay - cy)) / area
        hit = (u > 0) & (v > 0) & (u + v < 1)
        up = u * az + v * bz + (1 - u - v) * cz >= z[near]
        above[near[hit & up]] += 1
        below[near[hit & ~up]] += 1
    result = np.empty(len(points), bool)
    result[order] = (above % 2 == 1) & (below % 2 == 1)
    return result
