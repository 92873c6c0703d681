"""Evaluation profiles: whose protocol a number follows.

Row keys mean the same in every profile and hold raw values in the frame of the meshes, which is the canonical one in
the workflow. A profile says how they were taken (counts, sources, inside test), which of them its paper reports, and
under `printed` what its paper prints: its own combination, scale and frame, in the row as `printed_<name>`.

Sheets: evaluation.md 2, neuralpull.md 7, nmf.md 6, deepsdf.md 8, imnet.md 5. The originals of the first four load
their points as float16 and shift those of the IoU by N(0, 1e-4^2) to break ties. Stored labels here belong to the
stored coordinates exactly, so no profile shifts them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pipeline.evaluation.metrics import Metric

ProfileName = Literal[
    "onet", "convonet", "ifnet", "air-ifnet", "air-onet", "air-human", "deepsdf", "imnet", "neuralpull", "nmf"
]

Frame = Literal["meshes", "diagonal", "scalar", "own"]
"""In which lengths a paper's printed values and its IoU points are.

meshes: as the meshes come, in the workflow canonical: longest edge 1, centred. diagonal: the reference's box has
diagonal 1 and is centred (IM-NET; also ShapeNet's own frame, in which DeepSDF measures, since ShapeNet scales its
models so). scalar: shifted and scaled by one smallest and one largest number over all coordinates of the reference,
which is the canonical frame where that is centred (AIR-Nets' humans). own: each mesh alone, by its samples' mean and
its farthest point, which forgives shifts and scales (Neural Mesh Flow)."""


@dataclass(frozen=True)
class SurfaceProtocol:
    """Samples of the two surfaces, uniform by area. Profiles with equal ones share one comparison."""

    predicted_samples: int = 100_000
    """Points drawn on the predicted mesh."""
    reference_samples: int = 100_000
    """Points of the reference; fewer where fewer are stored."""
    reference_source: Literal["stored", "fresh"] = "stored"
    """stored: the surface samples of the data stages, the same for all methods. fresh: drawn on the reference mesh."""


@dataclass(frozen=True)
class VolumeProtocol:
    """Points on which the IoU is counted. Profiles with equal ones share one count."""

    points: int = 100_000
    """Their number; for a lattice that of its cells."""
    box: float = 1.1
    """Edge of the centred cube in which they lie."""
    source: Literal["stored", "fresh", "lattice"] = "stored"
    """stored: the labelled volume samples of the data stages. fresh: uniform. lattice: centres of equal cells. Labels
    of fresh ones and of the lattice come from the reference mesh by the same inside test."""
    inside_test: Literal["parity", "waterproof"] = "parity"
    """parity: crossings above and below along z both odd. waterproof: at holes asked again along x and y."""


@dataclass(frozen=True)
class MeshProtocol:
    """DeepSDF's comparison of samples with the other mesh itself."""

    transport_samples: int = 500
    """Points of each side that are assigned to each other one to one."""
    accuracy_samples: int = 1000
    """Points of the prediction whose distances to the reference mesh are ranked."""
    accuracy_quantile: float = 0.9
    """Share of them that lies within the reported distance."""
    completion_samples: int = 1000
    """Points of the reference asked whether the predicted mesh is near."""
    completion_distance: float = 0.01
    """What near means, in the profile's frame."""
    cosine_samples: int = 2500
    """Points of the reference whose normals are compared with those of the nearest predicted faces."""


@dataclass(frozen=True)
class Printed:
    """A value as a paper prints it: `factor` times the row's `key`, taken in the profile's frame."""

    key: str
    factor: float = 1.0
    title: str = ""
    """What it is called; the key's own title where empty."""


@dataclass(frozen=True)
class Profile:
    """One paper's evaluation."""

    paper: str
    """Where it is defined."""
    metrics: tuple[str, ...]
    """The row keys it reports, in its order."""
    mean: Literal["macro", "micro"]
    """The mean it prints: macro is the unweighted mean of category means, micro the mean of all shapes."""
    surface: SurfaceProtocol = SurfaceProtocol()
    volume: VolumeProtocol | None = None
    """None where the paper has no IoU."""
    mesh: MeshProtocol | None = None
    frame: Frame = "meshes"
    printed: Mapping[str, Printed] = field(default_factory=dict)
    """Name → what the paper prints where it is not the row's value as it is; `printed_<name>` in the row."""
    thresholds: tuple[float, ...] = ()
    """Thresholds of further F-scores, in the profile's frame, for `printed` alone."""
    strict: bool = False
    """Whether a distance equal to such a threshold is too far."""
    manifoldness: bool = False
    """Whether the ratios of `manifold.manifoldness` are its metrics."""
    light_field: bool = False
    """Whether the light field distance is."""
    failures: Literal["dropped"] = "dropped"
    """What its own script does with shapes that failed; the tables here show means with them dropped and penalised."""

    @property
    def print_scale(self) -> dict[str, float]:
        """Factors of the row keys that it prints scaled and does not convert to another frame."""
        return {p.key: p.factor for p in self.printed.values() if self.frame == "meshes" and p.key in self.metrics}

    @property
    def columns(self) -> dict[str, Metric]:
        """Every metric of its rows, those it prints among them, each with its meaning."""
        from pipeline.evaluation.metrics import METRICS

        return {**METRICS, **{f"printed_{name}": _meaning(p, METRICS) for name, p in self.printed.items()}}

    @property
    def shown(self) -> tuple[str, ...]:
        """Its metrics as its paper shows them: the row's, times `print_scale`, and where that cannot give what the
        paper prints, the printed value itself. Precision and recall are left to the rows."""
        direct = self.print_scale
        instead = {p.key: f"printed_{name}" for name, p in self.printed.items() if p.key not in direct}
        others = [name for key, name in instead.items() if key not in self.metrics]
        others = [name for name in others if not name.startswith(("printed_precision", "printed_recall"))]
        return (*(instead.get(key, key) for key in self.metrics), *others)


def _meaning(printed: Printed, metrics: Mapping[str, Metric]) -> Metric:
    known = metrics.get(printed.key) or replace(metrics["f_0.01"], title=printed.key)  # else it is a share
    factor = f" x{printed.factor:g}" if printed.factor != 1 else ""
    title = printed.title or f"{known.title}{factor}"
    return replace(known, title=title, penalty=printed.factor * known.penalty)


# The papers' unit of length is a tenth of the longest edge.
TENTHS = {key: Printed(key, 10.0) for key in ("chamfer_l1", "accuracy", "completeness")}
F_KEYS = ("f_0.005", "f_0.01", "f_0.015", "f_0.02")
FRESH = SurfaceProtocol(reference_source="fresh")
WATERPROOF = VolumeProtocol(points=1_000_000, box=1.0, source="fresh", inside_test="waterproof")
AIR_METRICS = ("iou", "chamfer_l1", "normal_consistency", "f_0.01", "f_0.005", "f_0.015", "f_0.02", "chamfer_l2")
AIR_PAPER = "AIR-Nets (Giebenhain and Goldluecke, 3DV 2021)"
MEAN_SQUARES_SUM = {"cd": Printed("chamfer_l2", 2000.0, "Chamfer distance (sum of squares) x1000")}

PROFILES: dict[ProfileName, Profile] = {
    "onet": Profile(
        paper="Occupancy Networks (Mescheder et al., CVPR 2019), tables 1 to 3; eval_meshes",
        volume=VolumeProtocol(),
        metrics=("iou", "chamfer_l1", "normal_consistency", "chamfer_l2", "accuracy", "completeness"),
        mean="macro",
        printed=TENTHS,
    ),
    "convonet": Profile(
        paper="Convolutional Occupancy Networks (Peng et al., ECCV 2020), tables 1 and 2; eval_meshes",
        volume=VolumeProtocol(),
        metrics=("iou", "chamfer_l1", "normal_consistency", "f_0.01", "f_0.015", "f_0.02"),
        mean="macro",
        printed={"chamfer_l1": TENTHS["chamfer_l1"]},
    ),
    "ifnet": Profile(
        paper="IF-Nets (Chibane et al., CVPR 2020), table 1; evaluate",
        surface=FRESH,
        volume=WATERPROOF,
        metrics=("iou", "chamfer_l2", "normal_consistency", "accuracy", "completeness"),
        mean="micro",
        printed={"chamfer_l2": Printed("chamfer_l2", 100.0)},
    ),
    "air-ifnet": Profile(
        paper=f"{AIR_PAPER}, table 1 (data of IF-Nets); evaluate",
        surface=FRESH,
        volume=WATERPROOF,
        metrics=AIR_METRICS,
        mean="micro",
    ),
    "air-onet": Profile(
        paper=f"{AIR_PAPER}, table 2 (data of Occupancy Networks); evaluate",
        volume=VolumeProtocol(inside_test="waterproof"),
        metrics=AIR_METRICS,
        mean="micro",
    ),
    "air-human": Profile(
        paper=f"{AIR_PAPER}, table 3 (FAUST scans); evaluate",
        surface=FRESH,
        volume=WATERPROOF,
        frame="scalar",
        metrics=AIR_METRICS,
        mean="micro",
        thresholds=(0.005, 0.01, 0.015, 0.02),
        printed={"chamfer_l1": Printed("chamfer_l1"), "chamfer_l2": Printed("chamfer_l2")}
        | {key: Printed(key) for key in F_KEYS},
    ),
    "deepsdf": Profile(
        paper="DeepSDF (Park et al., CVPR 2019), tables 2 to 5; evaluate. The counts of points but for the "
        "Chamfer distance's are the paper's, its code has none of these metrics",
        surface=SurfaceProtocol(30_000, 30_000),
        mesh=MeshProtocol(),
        frame="diagonal",
        metrics=("chamfer_l2", "emd", "mesh_accuracy", "mesh_completion", "mesh_cosine"),
        mean="macro",
        printed=MEAN_SQUARES_SUM | {"emd": Printed("emd"), "mesh_accuracy": Printed("mesh_accuracy")},
    ),
    "imnet": Profile(
        paper="IM-NET (Chen and Zhang, CVPR 2019), with the author's later evaluation; BSP-NET-original/evaluation",
        surface=SurfaceProtocol(4096, 4096),
        volume=VolumeProtocol(points=64**3, box=1.0, source="lattice"),
        frame="diagonal",
        metrics=("chamfer_l2", "normal_consistency", "light_field_distance", "iou", "voxel_error"),
        mean="macro",
        printed=MEAN_SQUARES_SUM,
        light_field=True,
    ),
    "neuralpull": Profile(
        paper="Neural-Pull (Ma et al., ICML 2021), ShapeNet tables. Its normal consistency adds up components and "
        "comes out too large",
        surface=SurfaceProtocol(predicted_samples=1_000_000),
        metrics=("chamfer_l1", "chamfer_l2", "normal_consistency"),
        mean="macro",
        thresholds=(0.002, 0.004),
        printed={
            "chamfer_l2": Printed("chamfer_l2", 100.0),
            "normal_consistency": Printed("componentwise_consistency", 1.0, "Normal consistency, by components"),
            "f_0.002": Printed("f_0.002", 1.0, "F-score at 0.002"),
            "f_0.004": Printed("f_0.004", 1.0, "F-score at 0.004"),
        },
    ),
    "nmf": Profile(
        paper="Neural Mesh Flow (Gupta and Chandraker, NeurIPS 2020); evaluation/tools. Each mesh is scaled by itself",
        surface=SurfaceProtocol(10_000, 10_000),
        frame="own",
        metrics=(
            *("chamfer_l2", "normal_consistency", "nmv_published", "nme_published", "nmf_published", "isect_published"),
            *("nmv_corrected", "nme_corrected", "nmf_corrected", "isect_corrected"),
        ),
        mean="macro",
        thresholds=(0.01, 0.03, 0.05, 0.07, 0.1),
        strict=True,
        printed=MEAN_SQUARES_SUM
        | {
            "normal_consistency": Printed("signed_consistency", 1.0, "Normal consistency, signed"),
            "abs_normal_consistency": Printed("normal_consistency", 1.0, "Normal consistency"),
        }
        | {
            f"{name}_{t:g}": Printed(f"{key}_{t:g}", 100.0, f"{title} at {t:g}, %")
            for t in (0.01, 0.03, 0.05, 0.07, 0.1)
            for name, key, title in (
                ("precision", "precision", "Precision"),
                ("recall", "recall", "Recall"),
                ("f1", "f", "F1"),
            )
        },
        manifoldness=True,
    ),
}


def profile_named(name: str) -> Profile:
    """The profile of that name. Raises ValueError that names the nearest one."""
    if name not in PROFILES:
        near = get_close_matches(name, PROFILES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"there is no evaluation profile {name!r}; there are {', '.join(PROFILES)}{hint}")
    return PROFILES[name]
