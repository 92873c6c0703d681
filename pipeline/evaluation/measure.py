"""One prediction against one reference under any number of profiles: what profiles share is made once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.arrays import Mesh, Rejected
from pipeline.evaluation import metrics
from pipeline.evaluation.frame import COMMON, Box, Placement
from pipeline.evaluation.metrics import Match, Samples, volume_iou
from pipeline.evaluation.occupancy import inside_many
from pipeline.evaluation.profiles import MeshProtocol, Printed, Profile, SurfaceProtocol, VolumeProtocol
from pipeline.geometry.clean import without_unused_vertices
from pipeline.geometry.closest import Scene
from pipeline.geometry.sampling import points_on_surface
from pipeline.seeds import rng_for

Arrays = dict[str, np.ndarray]
Row = dict[str, Any]

UNDEFINED = float("nan")


@dataclass(frozen=True)
class Reference:
    """What a prediction is compared with. A profile finds undefined what it needs and is not here.

    mesh: measurable (`shape.fault_of`). surface: stored "points" (n, 3) and "normals" (n, 3). volume: stored "points"
    (m, 3) and "occupancies" (m,).
    """

    mesh: Mesh | None = None
    surface: Arrays | None = None
    volume: Arrays | None = None

    @cached_property
    def bounds(self) -> np.ndarray:
        """Lower and upper corner, (2, 3)."""
        points = self.surface["points"] if self.mesh is None else without_unused_vertices(self.mesh).vertices
        return np.stack([points.min(axis=0), points.max(axis=0)]).astype(np.float64)


class Measurement:
    """The values of one pair. seed: of all that is drawn; what one profile draws does not depend on the others.

    most_samples: at most so many points are drawn or used of any kind; None: as the profiles say.
    """

    def __init__(self, predicted: Mesh, reference: Reference, seed: int, most_samples: int | None = None) -> None:
        self.predicted, self.reference = without_unused_vertices(predicted), reference
        self._seed, self._most = seed, most_samples
        self._made: dict[Hashable, Any] = {}

    # --- what profiles share

    def match(self, protocol: SurfaceProtocol) -> Match:
        """Nearest neighbours between the samples of both surfaces."""
        return self._once(
            (protocol, "match"), lambda: Match.of(self.samples(protocol), self.reference_samples(protocol))
        )

    def samples(self, protocol: SurfaceProtocol) -> Samples:
        """Samples of the predicted surface."""
        count = self._capped(protocol.predicted_samples)
        return self._once(("predicted", count), lambda: self._drawn(self.predicted, count, "predicted"))

    def reference_samples(self, protocol: SurfaceProtocol) -> Samples:
        """Samples of the reference surface, stored or fresh. Raises ValueError where there is nothing to take."""
        count, source = self._capped(protocol.reference_samples), protocol.reference_source
        return self._once(("reference", count, source), lambda: self._reference_samples(count, source))

    def labels(self, protocol: VolumeProtocol, frame: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Points (n, 3) of the IoU and which of them lie inside the reference; None where that cannot be known.

        It cannot either where fresh points would be drawn `beyond` the reference: in a cube that it does not lie in.
        """
        key = (replace(protocol, inside_test="parity"), frame, "points")
        points = self._once(key, lambda: self._points(protocol, frame))
        if protocol.source == "stored":
            volume = self.reference.volume
            return None if volume is None else (points, np.asarray(volume["occupancies"]) > 0.5)
        if self.reference.mesh is None or self._beyond(frame):
            return None
        test = protocol.inside_test
        return points, self._once((*key, test), lambda: inside_many(self.reference.mesh, points, test))

    def occupied(self, protocol: VolumeProtocol, frame: str, points: np.ndarray) -> np.ndarray:
        """Which of the points of the IoU lie inside the prediction."""
        return self._once(
            (protocol, frame, "inside"), lambda: inside_many(self.predicted, points, protocol.inside_test)
        )

    def overlaps(self, profile: Profile) -> tuple[float, float]:
        """`overlap.overlap_share` of the prediction and of the reference, on the points of the IoU.

        0 for a reference whose labels are stored, and for both where the reference has no volume.
        """
        protocol = profile.volume
        known = self.labels(protocol, profile.frame) if protocol else None
        if known is None:
            return 0.0, 0.0
        key = (protocol, profile.frame, "overlaps")
        return self._once(key, lambda: self._overlaps(protocol, profile.frame, *known))

    @cached_property
    def predicted_scene(self) -> Scene:
        return Scene(self.predicted)

    @cached_property
    def reference_scene(self) -> Scene | None:
        return None if self.reference.mesh is None else Scene(self.reference.mesh)

    @cached_property
    def manifoldness(self) -> Row:
        """`manifold.manifoldness` of the prediction."""
        from pipeline.evaluation.manifold import manifoldness

        return manifoldness(self.predicted)

    # --- the values of one profile

    def values(self, profile: Profile, mesh_distance_points: int = 0) -> Row:
        """Metrics of the profile, with reference_has_volume and the numbers of points they rest on.

        mesh_distance_points: of each side, for the distances to the other mesh; 0 leaves those out.
        """
        match = self.match(profile.surface)
        row = dict.fromkeys(metrics.GENERAL, UNDEFINED)
        row |= {**metrics.surface_metrics(match), **self._volume_values(profile)}
        row |= {"predicted_samples": len(match.predicted.points), "reference_samples": len(match.reference.points)}
        if mesh_distance_points:
            row |= self._mesh_distances(profile.surface, mesh_distance_points)
        if profile.mesh:
            row |= self._mesh_values(profile, profile.mesh)
        if profile.light_field:
            row["light_field_distance"] = self._light_field_distance()
        if profile.manifoldness:
            row |= {key: value for key, value in self.manifoldness.items() if key in metrics.METRICS}
        return row | self._printed(profile, row)

    def cube(self, profile: Profile) -> Box | None:
        """Where the points of the profile's IoU lie; None where it has no IoU, or no points."""
        protocol = profile.volume
        if protocol is None:
            return None
        if protocol.source == "stored":
            points = self._points(protocol, profile.frame)
            return Box.around(points) if len(points) else None
        cube = Box.cube(protocol.box)
        return cube if profile.frame == "meshes" else Box(self.placement(profile.frame).back(cube.corners))

    def beyond(self, profile: Profile) -> bool:
        """Whether the reference leaves `frame.COMMON`, and fresh points of the profile's IoU do not follow it there."""
        drawn = profile.volume is not None and profile.volume.source != "stored"
        return drawn and self._beyond(profile.frame)

    def _beyond(self, frame: str) -> bool:
        return frame == "meshes" and COMMON.left_by(self.reference.bounds)

    def _overlaps(
        self, protocol: VolumeProtocol, frame: str, points: np.ndarray, labels: np.ndarray
    ) -> tuple[float, float]:
        from pipeline.evaluation.overlap import overlap_share

        of_predicted = overlap_share(self.predicted, points, self.occupied(protocol, frame, points))
        if protocol.source == "stored":
            return of_predicted, 0.0
        return of_predicted, overlap_share(self.reference.mesh, points, labels)

    def _volume_values(self, profile: Profile) -> Row:
        protocol = profile.volume
        known = self.labels(protocol, profile.frame) if protocol else None
        if known is None:
            return {"iou": UNDEFINED, "iou_points": 0, "reference_has_volume": None if protocol is None else False}
        points, labels = known
        inside = self.occupied(protocol, profile.frame, points)
        row = {"iou": volume_iou(inside, labels), "iou_points": len(points), "reference_has_volume": bool(labels.any())}
        if protocol.source == "lattice":
            row["voxel_error"] = float((inside != labels).mean()) if labels.any() else UNDEFINED
        return row

    def _mesh_distances(self, protocol: SurfaceProtocol, count: int) -> Row:
        """Distances of samples to the other mesh; every k-th sample, which keeps to the order along the surface."""
        predicted, reference = (
            samples.points[:: -(-len(samples.points) // count)]
            for samples in (self.samples(protocol), self.reference_samples(protocol))
        )
        scene = self.reference_scene
        return {
            "accuracy_mesh": UNDEFINED if scene is None else float(scene.distance(predicted).mean(dtype=np.float64)),
            "completeness_mesh": float(self.predicted_scene.distance(reference).mean(dtype=np.float64)),
        }

    def _mesh_values(self, profile: Profile, protocol: MeshProtocol) -> Row:
        """DeepSDF's metrics beside the Chamfer distance; lengths in the frame of the meshes."""
        predicted, reference = self.samples(profile.surface), self.reference_samples(profile.surface)
        factor = self.placement(profile.frame).factor
        rng = rng_for(self._seed, "mesh protocol")
        count = min(protocol.transport_samples, len(predicted.points), len(reference.points))
        moved = [samples.points[_rows(samples, count, rng)] for samples in (predicted, reference)]
        tried = predicted.points[_rows(predicted, protocol.accuracy_samples, rng)]
        asked = reference.points[_rows(reference, protocol.completion_samples, rng)]
        faced = _rows(reference, protocol.cosine_samples, rng)
        normals = self.predicted_scene.closest_normals(reference.points[faced])
        near = self.predicted_scene.distance(asked) * factor <= protocol.completion_distance
        scene = self.reference_scene
        return {
            "emd": metrics.assignment_distance(*moved),
            "mesh_accuracy": UNDEFINED
            if scene is None
            else float(np.quantile(scene.distance(tried), protocol.accuracy_quantile)),
            "mesh_completion": float(near.mean()),
            "mesh_cosine": metrics.mean_cosine(reference.normals[faced], normals),
        }

    def _light_field_distance(self) -> float:
        from pipeline.evaluation.light_field import light_field_distance

        if self.reference.mesh is None:
            return UNDEFINED
        try:
            return float(light_field_distance(self.predicted, self.reference.mesh))
        except Rejected:
            return UNDEFINED

    # --- as papers print

    def placement(self, frame: str) -> Placement:
        """The frame that the reference defines."""
        low, high = self.reference.bounds
        if frame == "diagonal":
            return Placement((low + high) / 2, 1 / float(np.linalg.norm(high - low)))
        if frame == "scalar":
            least, most = low.min(), high.max()
            return Placement(np.full(3, (least + most) / 2), 1 / float(most - least))
        return Placement(np.zeros(3), 1.0)

    def _printed(self, profile: Profile, row: Row) -> Row:
        if not profile.printed:
            return {}
        match, factor, values = self.match(profile.surface), self.placement(profile.frame).factor, dict(row)
        if profile.frame == "own":
            match = self._own_match(profile.surface)
            values |= metrics.surface_metrics(match, ())
        elif factor != 1:
            match = replace(match, to_reference=match.to_reference * factor, to_predicted=match.to_predicted * factor)
            values |= metrics.surface_metrics(match, ())
        values |= metrics.threshold_scores(match, profile.thresholds, profile.strict)
        values |= {key: row[key] * factor for key in ("emd", "mesh_accuracy") if key in row}
        return {f"printed_{name}": p.factor * self._value(p, values, match) for name, p in profile.printed.items()}

    @staticmethod
    def _value(printed: Printed, values: Row, match: Match) -> float:
        special = {
            "signed_consistency": metrics.signed_consistency,
            "componentwise_consistency": metrics.componentwise_consistency,
        }
        return special[printed.key](match) if printed.key in special else values[printed.key]

    def _own_match(self, protocol: SurfaceProtocol) -> Match:
        """Each side shifted by the mean of its samples and scaled by its farthest point: of the prediction its
        farthest vertex, of the reference its farthest sample, as Neural Mesh Flow does."""
        reference = self.reference_samples(protocol)
        framing = self._drawn(self.predicted, self._capped(protocol.predicted_samples), "own frame").points.mean(axis=0)
        centre = reference.points.mean(axis=0, dtype=np.float64)
        return Match.of(
            self.samples(protocol).moved(framing, 1 / _reach(self.predicted.vertices - framing)),
            reference.moved(centre, 1 / _reach(reference.points - centre)),
        )

    # --- drawing

    def _once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _capped(self, count: int) -> int:
        return count if self._most is None else min(count, self._most)

    def _drawn(self, mesh: Mesh, count: int, label: str) -> Samples:
        return Samples(*points_on_surface(mesh, count, rng_for(self._seed, label, str(count))))

    def _reference_samples(self, count: int, source: str) -> Samples:
        if source == "fresh" and self.reference.mesh is not None:
            return self._drawn(self.reference.mesh, count, "reference")
        if self.reference.surface is None:
            raise ValueError(f"the profile needs {source} samples of the reference, and there are none")
        stored = Samples(self.reference.surface["points"], self.reference.surface["normals"])
        if len(stored.points) <= count:
            return stored
        rows = _rows(stored, count, rng_for(self._seed, "reference rows", str(count)))
        return Samples(stored.points[rows], stored.normals[rows])

    def _points(self, protocol: VolumeProtocol, frame: str) -> np.ndarray:
        if protocol.source == "stored":
            return np.zeros((0, 3)) if self.reference.volume is None else self.reference.volume["points"]
        if protocol.source == "lattice":
            size = round(protocol.points ** (1 / 3))
            unit = np.stack(np.unravel_index(np.arange(size**3), (size,) * 3), axis=1) + 0.5
            points = unit / size - 0.5
        else:
            points = rng_for(self._seed, "volume").random((self._capped(protocol.points), 3)) - 0.5
        points *= protocol.box
        return points if frame == "meshes" else self.placement(frame).back(points)


def _rows(samples: Samples, count: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers of different samples, at most all."""
    return rng.choice(len(samples.points), min(count, len(samples.points)), replace=False)


def _reach(points: np.ndarray) -> float:
    return float(np.sqrt(np.einsum("ij,ij->i", points, points).max()))
