"""`isomill eval <predicted> <reference>`: measure meshes against their references, two files or two folders.

The profiles are written for the canonical frame (the reference's box centred at the origin, its longest edge 1). A pair
whose reference does not lie in ±0.55 is taken there by the reference's box, unless --frame as-given says otherwise.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

from pipeline.evaluation.profiles import PROFILES, profile_named
from pipeline.names import composed
from pipeline.progress import LOG, Progress, start_log

SUFFIXES = (".obj", ".off", ".ply", ".stl", ".glb", ".gltf")
LARGEST_FILE = 2_000_000_000
"""Bytes; five million faces written as text take up to 400 MB."""
LISTED = 10
AUTO = "auto"
AS_GIVEN = "as-given"
REFERENCE_BOX = "reference-box"
UNDEFINED = "undefined"
"""Status of a pair whose reference cannot be measured: nobody's failure, and in no mean."""


class Mismatch(Exception):
    """The two places do not fit together; the message says why."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("predicted", type=Path, help="a mesh, or a folder of meshes")
    parser.add_argument("reference", type=Path, help="its reference, or a folder with files of the same names")
    parser.add_argument(
        "--profile",
        action="append",
        metavar="NAME",
        help=f"whose protocol; may be given several times: {', '.join(PROFILES)} (default: onet)",
    )
    parser.add_argument(
        "--frame",
        choices=(AUTO, AS_GIVEN),
        default=AUTO,
        help="frame of all distances, thresholds and IoU points. auto (default): a pair whose reference lies inside "
        "±0.55 is taken as given, any other is scaled by its reference's box, centre to the origin and longest edge "
        "to 1, both meshes alike, and the column frame of the CSV says so. as-given: nothing is scaled, and where the "
        "reference leaves ±0.55 the IoU is undefined",
    )
    parser.add_argument("--output", type=Path, help="CSV to write, one row per shape and profile")
    parser.add_argument("--details", action="store_true", help="distances to the meshes themselves, mesh quality")
    parser.add_argument("--workers", type=int, default=1, help="worker processes (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of all samples (default: 0)")


def run(arguments: argparse.Namespace) -> int:
    start_log(None)
    profiles = tuple(dict.fromkeys(arguments.profile or ["onet"]))
    try:
        for name in profiles:
            profile_named(name)
        pairs = find_pairs(arguments.predicted, arguments.reference)
    except (ValueError, Mismatch) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    rows = list(_measured(pairs, profiles, arguments))
    return _report(rows, profiles, arguments.output)


def find_pairs(predicted: Path, reference: Path) -> dict[str, tuple[Path | None, Path]]:
    """Name → predicted file, None where there is none, and reference file.

    Files of two folders belong together whose paths below them are the same but for the suffix and for how accents are
    written. Raises Mismatch where something is missing, nothing belongs together, or one name stands for two files.
    """
    for path in (predicted, reference):
        if not path.exists():
            raise Mismatch(f"{path} does not exist")
    if predicted.is_dir() != reference.is_dir():
        folder, file = (predicted, reference) if predicted.is_dir() else (reference, predicted)
        raise Mismatch(f"{folder} is a folder and {file} is a file; give two files or two folders")
    if not predicted.is_dir():
        return {composed(predicted.stem): (predicted, reference)}
    given, wanted = _meshes_in(predicted), _meshes_in(reference)
    if not wanted:
        raise Mismatch(f"{reference} holds no mesh ({', '.join(SUFFIXES)})")
    if not given.keys() & wanted.keys():
        raise Mismatch(
            f"no name in {predicted} is one in {reference}; names are paths below the folder without suffix\n"
            f"  predicted: {listed(sorted(given)) or 'no meshes'}\n  reference: {listed(sorted(wanted))}"
        )
    extra, missing = sorted(given.keys() - wanted.keys()), sorted(wanted.keys() - given.keys())
    if extra:
        LOG.warning("%d predictions have no reference and are left out: %s", len(extra), listed(extra))
    if missing:
        LOG.warning("%d references have no prediction, which counts as failed: %s", len(missing), listed(missing))
    return {name: (given.get(name), path) for name, path in sorted(wanted.items())}


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _meshes_in(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            name = composed(path.relative_to(folder).with_suffix("").as_posix())
            if name in found:
                raise Mismatch(f"{found[name]} and {path} have one name; keep one of them")
            found[name] = path
    return found


def evaluate_files(
    predicted: Path | None,
    reference: Path,
    profiles: Sequence[str],
    seed: int,
    details: bool,
    frame: str = AUTO,
    roots: tuple[Path | None, Path | None] = (None, None),
) -> dict[str, dict[str, Any]]:
    """Profile → row of two files; a file that cannot be read is a status with the reason.

    frame: "auto", where both are moved as `frame.placement_of` says, or "as-given". Rows of pairs that could be
    measured have the keys "frame", "as-given" or "reference-box", and "frame_unit", the length in the files that is 1
    in the row. roots: the folders below which the buffers of each file may lie, see `read_mesh`.
    """
    from pipeline.arrays import Rejected
    from pipeline.evaluation.frame import placement_of
    from pipeline.evaluation.pair import evaluate_profiles
    from pipeline.evaluation.shape import fault_of

    try:
        truth = read_mesh(reference, roots[1])
    except Rejected as reason:
        return _failed(profiles, UNDEFINED, f"the reference cannot be read: {reason}")
    status, reason = fault_of(truth)
    if status != "ok":
        return _failed(profiles, UNDEFINED, f"the reference cannot be measured: {reason}")
    try:
        mesh = None if predicted is None else read_mesh(predicted, roots[0])
    except Rejected as reason:
        return _failed(profiles, "invalid", f"the prediction cannot be read: {reason}")
    placement = placement_of(truth) if frame == AUTO else None
    described = {"frame": AS_GIVEN, "frame_unit": 1.0}
    if placement is not None:
        described = {"frame": REFERENCE_BOX, "frame_unit": 1 / placement.factor}
        truth = placement.moved(truth)
        mesh = None if mesh is None else placement.moved(mesh)
    rows = evaluate_profiles(mesh, truth, profiles, seed, details)
    return {profile: {**row, **described} for profile, row in rows.items()}


def read_mesh(path: Path, root: Path | None = None):
    """A mesh file as it is, with its buffers where it is glTF. Raises Rejected where it cannot be read.

    root: the folder out of which no buffer is taken, by default the file's own; a source of that folder finds the same.
    """
    from pipeline.arrays import Rejected
    from pipeline.meshes.read import ReadSettings, extract_meshes
    from pipeline.sources.archives import ReadLimits
    from pipeline.sources.catalogue import read_raw
    from pipeline.sources.companions import location_within

    try:
        location = location_within(path, root or path.parent)
        raw = read_raw(location, limits=ReadLimits(max_bytes=LARGEST_FILE))
    except (OSError, ValueError) as problem:
        raise Rejected(str(problem)) from None
    return extract_meshes(raw.content, raw.name, raw.companions, ReadSettings(max_bytes=LARGEST_FILE)).value


def _failed(profiles: Sequence[str], status: str, reason: str) -> dict[str, dict[str, Any]]:
    return {profile: {"status": status, "reason": reason} for profile in profiles}


def _measured(
    pairs: Mapping[str, tuple[Path | None, Path]], profiles: Sequence[str], arguments: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """The rows of all pairs, in any order; a pair that kills its worker costs itself only."""
    from pebble import ProcessExpired, ProcessPool

    from pipeline.evaluation.summary import profile_rows

    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    roots = tuple(path if path.is_dir() else None for path in (arguments.predicted, arguments.reference))
    progress = Progress("eval", len(pairs))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.evaluation.pair"])
    with ProcessPool(max(1, min(arguments.workers, len(pairs))), context=context) as pool:
        common = profiles, arguments.seed, arguments.details, arguments.frame
        futures = {
            pool.schedule(evaluate_files, args=(*files, *common), kwargs={"roots": roots}): name
            for name, files in pairs.items()
        }
        for future in as_completed(futures):
            name = futures[future]
            try:
                rows = future.result()
            except (ProcessExpired, MemoryError) as death:
                rows = _failed(profiles, "invalid", f"it could not be measured: {death}")
            category = name.split("/")[0] if "/" in name else "all"
            progress.advance()
            yield from profile_rows({"method": "predicted", "category": category, "id": name}, {"profiles": rows})
    progress.close()


def _report(rows: Sequence[Mapping[str, Any]], profiles: Sequence[str], output: Path | None) -> int:
    """Print the means, write the rows. 1 where a reference could not be measured, else 0."""
    from pipeline.evaluation import summary

    table = summary.wide_table(rows)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        table.drop(columns=["method", "split"]).dropna(axis=1, how="all").to_csv(output, index=False)
    undefined = table[table["status"] == UNDEFINED].drop_duplicates("id")
    scored = table[table["status"] != UNDEFINED]
    for profile in profiles:
        part = scored[scored["profile"] == profile]
        if len(part):
            print(_means(summary.by_method(part), profile, len(part)))
    for told in _frames(table):
        print(told)
    for name, part in scored[scored["reason"] != ""].groupby("id", sort=True):
        print(f"{name}: {part['status'].iloc[0]}: {_together(part['reason'])}")
    for _, row in undefined.iterrows():
        print(f"{row['id']}: in no mean: {row['reason']}", file=sys.stderr)
    return 1 if len(undefined) else 0


def _together(reasons: Iterable[str]) -> str:
    """What several profiles say of one pair, each remark once."""
    return "; ".join(dict.fromkeys(remark for reason in reasons for remark in reason.split("; ")))


def _frames(table) -> list[str]:
    """A sentence where pairs were scaled; nothing where all were taken as given."""
    measured = table.drop_duplicates("id")
    if "frame" not in measured:
        return []
    scaled = measured[measured["frame"] == REFERENCE_BOX]
    if scaled.empty:
        return []
    edges = [f"{row.id} (longest edge {row.frame_unit:.4g})" for row in scaled.itertuples()]
    return [
        f"frame: {len(scaled)} of {len(measured)} references are not inside ±0.55, so both meshes were scaled by the "
        f"reference's box, its centre to the origin and its longest edge to 1; distances are in that frame "
        f"(--frame as-given scales nothing): {listed(edges)}"
    ]


def _means(means, profile: str, count: int) -> str:
    """One line per metric; with one shape its value, with several the means over shapes."""
    heading = f"{profile}: {PROFILES[profile].paper}"
    if count == 1:
        return "\n".join([heading, *(f"  {row.metric:32} {row.micro_dropped:.6g}" for row in means.itertuples())])
    head = f"  {'mean over shapes':32} {'scored':>9} {'failed dropped':>16} {'failed penalised':>17}"
    lines = [
        f"  {row.metric:32} {f'{row.scored}/{row.asked - row.undefined}':>9} {row.micro_dropped:16.6g} "
        f"{row.micro_penalised:17.6g}"
        for row in means.itertuples()
    ]
    return "\n".join([heading, head, *lines])
