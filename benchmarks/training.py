"""Training speed of every model: our loop, the same model behind a conventional loader, and its arithmetic alone.

    python -m benchmarks.training [--models convonet-3plane deepsdf] [--device cuda] [--steps 100] [--full]

limit    forward, backward and optimiser step on one batch that lies on the device
ours     `pipeline.training.loop.train` on resident data
loader   the steps of the limit, each on a batch that two workers of a torch DataLoader put together: an item is one
         shape, read from its file and drawn from as the model draws

The three take turns every ten steps of one run, so that whatever else the machine does meets them alike; the first
turns warm up, the medians of the others stand. On the CPU the clock is the CPU time of all processes, so that a busy
machine changes little; steps per second are then those of one core. On a GPU it is wall time. The shapes are analytic,
their arrays of the sizes that the data stages give; a file holds what training keeps of a shape, uncompressed.

Without --full the networks and batches are scaled to some tens of milliseconds a step on one core, with --full they are
the papers'. FLOP are those of matrix products and convolutions.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import table
from pipeline.config import expand_preset
from pipeline.models import registry
from pipeline.models.contract import Model, build_model
from pipeline.overlays import merge
from pipeline.training.data import ResidentData
from pipeline.training.loop import RuntimeSettings, TrainingSettings, device_of, train
from pipeline.training.run import CHECK_EVERY, make_optimiser, rest_inactive_groups

TARGET = 0.9
WORKERS = 2
PREFETCHED = 2 * WORKERS  # batches that a DataLoader has ready while it waits
WARM_UP = 1  # turns
BATCHES = 2  # of distinct shapes
POINTS = 100_000  # of every sampled set, as in the data stages
SIGMAS = (0.1, 0.01)
VIEWS, PIXELS = 24, 137
SCALED_BATCH, DEFAULT_BATCH = 8, 32

ONET = {"hidden": 64, "queries": 512, "encoder_hidden": 64}
CONVONET = {"observation": {"points": 1000}, "queries": 512}
AIRNET = {"width": 64, "first_width": 64, "decoder_width": 64, "hidden": 64, "full_blocks": 1, "levels": [100, 50]}
IFNET = {"levels": [[8, 16], [16, 16], [16, 16]], "decoder": [64, 64], "queries": 2000}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "onet-pointcloud": ({"preset": "onet-pointcloud"}, {**ONET, "code": 64}),
    "onet-image": ({"preset": "onet-image"}, {**ONET, "code": 64, "observation": {"size": 64}}),
    "onet-voxel": ({"preset": "onet-voxel"}, {**ONET, "code": 64}),
    "onet-unconditional": ({"preset": "onet-unconditional"}, ONET),
    "convonet-1plane": ({"preset": "convonet-1plane"}, {**CONVONET, "plane_resolution": 32, "plane_width": 16}),
    "convonet-3plane": ({"preset": "convonet-3plane"}, {**CONVONET, "plane_resolution": 32, "plane_width": 16}),
    "convonet-grid32": ({"preset": "convonet-grid32"}, {**CONVONET, "grid_resolution": 16, "grid_width": 16}),
    "ifnet-points": (
        {"preset": "ifnet-points"},
        {**IFNET, "stem": 8, "observation": {"points": 1000, "resolution": 32}},
    ),
    "ifnet-vox32": ({"preset": "ifnet-vox32"}, IFNET),
    "airnet-300": ({"preset": "airnet-300"}, AIRNET),
    "airnet-pointnet-interp": ({"preset": "airnet-pointnet-interp"}, AIRNET),
    "deepsdf": ({"preset": "deepsdf"}, {"dims": [128] * 8, "code": 64, "samples": 256}),
    "imnet-ae": ({"method": "imnet"}, {"code": 64, "encoder_width": 8, "decoder_width": 32, "points": 1024}),
    "imnet-gan": ({"method": "imnet_gan"}, {}),
    "imnet-svr": ({"method": "imnet_svr"}, {"width": 16, "size": 64}),
    "neuralpull-image": (
        {"method": "neuralpull_image"},
        {"hidden": 256, "points": 2000, "queries": 256},
    ),
    "nmf-ae": (
        {"preset": "nmf-ae"},
        {
            "code": 64,
            "encoder": [32, 64],
            "hidden": 32,
            "norm_hidden": 32,
            "subdivision": 2,
            "targets": 256,
            "solver": "rk4",
            "solver_steps": 2,
            "adjoint": False,
            "observation": {"points": 500},
        },
    ),
    "nmf-svr": ({"method": "nmf_svr"}, {"size": 64, "width": 16, "features": 64, "hidden": 64, "points": 256}),
}
"""Case → an experiment's block, as in a configuration, and what lies over its model settings where it is scaled. A
block without a preset has the defaults of its model, which are its paper's settings."""

PARENTS = {
    "imnet-gan": "imnet-ae",
    "imnet-svr": "imnet-ae",
    "neuralpull-image": "onet-image",
    "nmf-svr": "nmf-ae",
}
"""Case → the case whose model it builds on."""

LOSSES_WITH_GRADIENTS = ("imnet-gan", "neuralpull-image")
"""Cases whose losses hold gradients, which torch's counter of FLOP does not take."""

PEAKS = {
    "H200": (67, 495, 989),
    "H100 80GB HBM3": (67, 495, 989),
    "H100 PCIe": (51, 378, 756),
    "A100": (19.5, 156, 312),
}
"""Part of a card's name → TFLOP/s by the vendor's data sheet, of dense matrices in 32 bits, TF32 and bf16."""

PRECISIONS = ("32-true", "tf32", "bf16-mixed")
HEADER = (
    *("model", "batch", "queries", "limit/s", "ours/s", "loader/s", "ours/limit", "ours/loader"),
    *("queries/s", "GFLOP/step", "GFLOP/s", "of peak"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--steps", type=int, default=120, help=f"steps of each kind, a multiple of {CHECK_EVERY}")
    parser.add_argument("--full", action="store_true", help="the papers' networks and batches")
    parser.add_argument("--precision", choices=PRECISIONS, default="32-true")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch on the CPU")
    parser.add_argument("--peak", type=float, help="TFLOP/s of the card at this precision; some are known")
    options = parser.parse_args()
    if options.steps % CHECK_EVERY or options.steps // CHECK_EVERY <= WARM_UP:
        parser.error(f"--steps must be a multiple of {CHECK_EVERY} above {WARM_UP * CHECK_EVERY}")
    rows = []
    for name in options.models:
        rows.append(measure(name, options))
        print(table(HEADER, rows[-1:]) if len(rows) == 1 else table(HEADER, rows).splitlines()[-1], flush=True)
    print(f"\n{table(HEADER, rows)}\n\n{verdict(rows)}")
    if missing := unmeasured():
        print(f"Models without a case here: {', '.join(missing)}")


def verdict(rows: list[tuple]) -> str:
    worst = min(rows, key=lambda row: row[HEADER.index("ours/limit")])
    ratio = worst[HEADER.index("ours/limit")]
    met = "met" if ratio >= TARGET else "missed"
    return f"worst ratio of ours to the limit {ratio:.2f} ({worst[0]}), target at least {TARGET}: {met}"


def unmeasured() -> list[str]:
    """Models that are trained by gradient steps and have no case."""
    trained = {name for name in registry.available_models() if registry.head(name).DECLARATION.trains == "gradient"}
    return sorted(trained - {expand_preset(block)["method"] for block, _ in CASES.values()})


def measure(name: str, options: argparse.Namespace) -> tuple:
    """The row of a case."""
    training = expand_preset(CASES[name][0]).get("training", {})
    batch = training.get("batch_shapes", DEFAULT_BATCH) if options.full else SCALED_BATCH
    settings = TrainingSettings(
        **{**training, "steps": options.steps, "batch_shapes": batch, "validation_shapes": 0},
        precision="bf16-mixed" if options.precision == "bf16-mixed" else "32-true",
        tf32=options.precision == "tf32",
    )
    runtime = RuntimeSettings(device=options.device, threads=options.threads, tensorboard=False)
    device, shapes = device_of(runtime), BATCHES * batch
    model = model_of(name, options.full, shapes)
    with tempfile.TemporaryDirectory() as name_of_folder:
        folder = Path(name_of_folder)
        data = ResidentData.from_shapes(written_shapes(model, shapes, folder), device=device)
        loader = conventional_loader(Items(folder, copy.deepcopy(model), shapes), batch, device)
        ours, behind_loader, alone = (copy.deepcopy(model).to(device) for _ in range(3))
        fixed = alone.draw(data, torch.arange(batch, device=device), torch.Generator(device).manual_seed(0))
        limit = Plain(alone, settings, device, itertools.repeat(fixed))
        conventional = Plain(behind_loader, settings, device, endless(loader))
        seconds = take_turns(ours, data, settings, runtime, limit, conventional, folder)
        flop = None if name in LOSSES_WITH_GRADIENTS else limit.flop_per_step()
    rates = {kind: CHECK_EVERY / statistics.median(turns[WARM_UP:]) for kind, turns in seconds.items()}
    queries = queries_of(fixed)
    peak = options.peak or peak_of(options)
    return (
        *(name, batch, queries, rates["limit"], rates["ours"], rates["loader"]),
        *(rates["ours"] / rates["limit"], rates["ours"] / rates["loader"]),
        queries and rates["ours"] * batch * queries,
        *(flop and flop / 1e9, flop and rates["ours"] * flop / 1e9),
        flop and peak and rates["ours"] * flop / 1e12 / peak,
    )


def take_turns(
    ours: Model,
    data: ResidentData,
    settings: TrainingSettings,
    runtime: RuntimeSettings,
    limit: Plain,
    conventional: Plain,
    folder: Path,
) -> dict[str, list[float]]:
    """Seconds of every turn of CHECK_EVERY steps of the three; the others' turns lie between those of our loop."""
    seconds: dict[str, list[float]] = {"limit": [], "ours": [], "loader": []}
    clock = clock_of(limit.device)
    started = clock()

    def report(step: int, total: int, values: dict[str, float]) -> None:
        nonlocal started
        seconds["ours"].append(clock() - started)
        seconds["limit"].append(timed(limit.make_steps, clock))
        conventional.make_steps(PREFETCHED)  # whose batches were made during the other turns
        seconds["loader"].append(timed(conventional.make_steps, clock))
        started = clock()

    train(ours, data, (), settings, runtime, seed=0, state_dir=folder / "state", log_dir=None, report=report)
    return seconds


def timed(work: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return clock() - start


def clock_of(device: torch.device) -> Callable[[], float]:
    """CPU seconds of this process and its children, or wall seconds at which a graphics card has finished its work."""

    def finished() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    def cpu_seconds() -> float:
        children = (psutil.Process(child.pid).cpu_times() for child in multiprocessing.active_children())
        return time.process_time() + sum(times.user + times.system for times in children)

    return finished if device.type == "cuda" else cpu_seconds


class Plain:
    """A model and what training it takes besides our loop: batches, gradients, an optimiser."""

    def __init__(
        self, model: Model, settings: TrainingSettings, device: torch.device, batches: Iterator[dict[str, Tensor]]
    ) -> None:
        self.model, self.device, self.batches = model.train(), device, batches
        self.optimiser = make_optimiser(model, settings)
        self.precision = settings.precision
        self.step = 0

    def make_steps(self, count: int = CHECK_EVERY) -> None:
        for batch in itertools.islice(self.batches, count):
            self.model.step = self.step
            self.optimiser.zero_grad()
            self.gradients({name: part.to(self.device, non_blocking=True) for name, part in batch.items()})
            rest_inactive_groups(self.model, self.optimiser)
            self.optimiser.step()
            self.step += 1

    def gradients(self, batch: dict[str, Tensor]) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16-mixed"):
            loss = self.model.loss(batch)["loss"]
        loss.backward()

    def flop_per_step(self) -> int:
        with FlopCounterMode(display=False) as counter:
            self.make_steps(1)
        return counter.get_total_flops()


class Items(Dataset):
    """Shapes as files, one item each: opened, read and drawn from whenever it is asked for."""

    def __init__(self, folder: Path, model: Model, count: int) -> None:
        self.folder, self.model, self.count = folder, model, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        with np.load(self.folder / f"{number}.npz") as arrays:
            data = ResidentData.from_shapes([dict(arrays)])
        generator = torch.Generator().manual_seed(torch.initial_seed() + number)
        drawn = self.model.draw(data, torch.zeros(1, dtype=torch.long), generator)
        # An auto-decoder's batch tells which codes it is about; a shape alone is always the first of its data.
        own = {"shapes": torch.tensor([number])} if "shapes" in drawn else {}
        return {name: part[0] for name, part in {**drawn, **own}.items()}


def conventional_loader(items: Items, batch: int, device: torch.device) -> DataLoader:
    return DataLoader(
        items,
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=WORKERS,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )


def endless(loader: DataLoader) -> Iterator[dict[str, Tensor]]:
    """Batches of one epoch after the other."""
    while True:
        yield from loader


def peak_of(options: argparse.Namespace) -> float | None:
    """TFLOP/s of the graphics card at this precision, None for a card that is not listed and for the CPU."""
    card = torch.cuda.get_device_name() if options.device == "cuda" else ""
    known = [peaks for part, peaks in PEAKS.items() if part in card]
    return known[0][PRECISIONS.index(options.precision)] if known else None


def queries_of(batch: dict[str, Tensor]) -> int | None:
    """Supervised points per shape; None where a code is all that is learnt."""
    supervised = batch.get("queries", batch.get("points"))
    return None if supervised is None else supervised.shape[1]


# --- models and shapes


def model_of(name: str, full: bool, shapes: int) -> Model:
    block, scaled = CASES[name]
    block = expand_preset(block)
    module = registry.load(block["method"])
    settings = block.get("model", {}) if full else merge(block.get("model", {}), scaled)
    parent = PARENTS.get(name)
    return build_model(
        block["method"],
        module.ModelSettings(**settings),
        module.InferenceSettings(),
        shapes,
        seed=0,
        parent=parent and model_of(parent, full, shapes),
    )


def written_shapes(model: Model, count: int, folder: Path) -> list[dict[str, np.ndarray]]:
    """What training keeps of so many shapes; each is also written to <number>.npz."""
    shapes = [model.prepare(shape_arrays(model.declaration.training_stages, number)) for number in range(count)]
    for number, arrays in enumerate(shapes):
        np.savez(folder / f"{number}.npz", **arrays)
    return shapes


def shape_arrays(stages: Sequence[str], number: int) -> dict[str, np.ndarray]:
    """The arrays that the data stages would give of a bumpy ball; its pictures are noise."""
    rng, arrays = np.random.default_rng(number), {}

    def field(points: np.ndarray) -> np.ndarray:
        """About the signed distance (n,), negative inside."""
        waves = np.sin(9 * points[:, 0] + number) * np.sin(8 * points[:, 1] + 1) * np.sin(7 * points[:, 2] + 2)
        return np.linalg.norm(points, axis=1) - 0.4 * (1 + 0.05 * waves)

    surface = rng.standard_normal((POINTS, 3), np.float32)
    surface /= np.linalg.norm(surface, axis=1, keepdims=True)
    sets = {"volume": (rng.random((POINTS, 3), np.float32) - 0.5) * np.float32(1.1)}
    for sigma in SIGMAS if any(stage.startswith("sample_boundary") for stage in stages) else ():
        sets[f"boundary-{sigma}"] = 0.4 * surface + sigma * rng.standard_normal((POINTS, 3), np.float32)
    for stage in stages:
        kind, _, which = stage.partition("/")
        if kind == "sample_surface":
            arrays |= {"surface.points": np.float32(0.4) * surface, "surface.normals": surface}
        elif kind == "compute_sdf":
            arrays |= {f"sdf.{name}": field(points) for name, points in sets.items()}
        elif kind == "voxelize":
            arrays[f"voxels.{which}"] = field(cell_centres(int(which))).reshape((int(which),) * 3) < 0
        elif kind == "render_views":
            arrays["views.images"] = rng.integers(0, 256, (VIEWS, PIXELS, PIXELS, 4), np.uint8)
        elif kind in ("sample_volume", "sample_boundary"):
            wanted = f"{kind.removeprefix('sample_')}-{which}".removesuffix("-")
            for name in (name for name in sets if name.startswith(wanted)):
                arrays |= {f"{name}.points": sets[name], f"{name}.occupancies": field(sets[name]) < 0}
        else:
            raise ValueError(f"this benchmark makes no arrays of the stage {stage}")
    return arrays


def cell_centres(resolution: int) -> np.ndarray:
    """Of the cells of the cube [-0.5, 0.5]^3, (resolution^3, 3), x slowest."""
    centres = ((np.arange(resolution) + 0.5) / resolution - 0.5).astype(np.float32)
    return np.stack(np.meshgrid(centres, centres, centres, indexing="ij"), axis=-1).reshape(-1, 3)


if __name__ == "__main__":
    main()
