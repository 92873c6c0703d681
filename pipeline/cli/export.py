"""`isomill export <format>`: the finished shapes in the formats that the original repositories train from."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline import commands, files
from pipeline.cli.study import add_config_argument, read_plan
from pipeline.plan import Plan
from pipeline.progress import Progress, start_log

# What each format is made of: data stages it cannot do without, and those it takes where the study has them.
NEEDS = {
    "onet": (("sample_surface", "sample_volume"), ("voxelize/32", "render_views")),
    "choy": (("render_views",), ()),
    "deepsdf": (("sample_surface", "compute_sdf"), ()),
    "imnet": ((), ("render_views",)),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "format",
        choices=tuple(NEEDS),
        help="onet: points.npz, pointcloud.npz, model.binvox, img_choy2016 and split lists; choy: rendering/*.png with "
        "their metadata; deepsdf: SdfSamples, NormalizationParameters, SurfaceSamples and split lists; imnet: "
        "all_vox256_img_{train,test}.hdf5, validation shapes among the training ones",
    )
    parser.add_argument("shapes", nargs="*", help="category/id of the shapes; by default all that were accepted")
    parser.add_argument("--output", type=Path, required=True, help="folder to write into; equal files are replaced")
    parser.add_argument("--float16", action="store_true", help="onet: coordinates and normals in half precision")
    add_config_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    start_log(None)
    finished = Finished(read_plan(arguments.configfile), arguments.format)
    names = finished.names(arguments.shapes)
    if arguments.format == "imnet":
        _write_imnet(finished, names, arguments.output)
    else:
        _write_files(finished, names, arguments)
    print(f"{len(names)} shapes written below {arguments.output}")
    if finished.left_out:
        print(f"{len(finished.left_out)} rejected shapes are left out, for example {finished.left_out[0]}")
    for instance in finished.absent:
        print(f"without {instance.replace('/', ' at ')}, which no experiment of this study uses")
    return 0


class Finished:
    """The finished shapes of a study: those that all stages a format needs have accepted."""

    def __init__(self, plan: Plan, format: str) -> None:
        from pipeline.jobs.arrays import read_tables
        from pipeline.jobs.context import open_store
        from pipeline.sources.catalogue import read_catalogue

        needed = _needed(plan, format)
        wanted = [instance for instance in NEEDS[format][1] if instance in plan.instances]
        self.absent = [instance for instance in NEEDS[format][1] if instance not in plan.instances]
        try:
            self._tables = read_tables(Path(plan.results), [*needed, *wanted], plan.shards)
            entries = read_catalogue(Path(plan.catalogue).read_text(encoding="utf-8"))
        except FileNotFoundError as missing:
            prepare = commands.snakemake("--cores", "4", "prepare_all")
            raise SystemExit(f"error: {missing.filename} is missing; finish the data first: {prepare}") from None
        self._needed = needed
        self._splits = {f"{entry.category}/{entry.id}": entry.split for entry in entries}
        self._store = open_store(plan.study.store.model_dump())
        self.dataset, self.seed = plan.study.dataset, plan.study.seed
        self.left_out = sorted(name for name in self._tables[needed[0]] if not self._accepted(name))

    def names(self, asked: list[str]) -> list[str]:
        """The shapes asked for, or all; sorted. Raises SystemExit where one is unknown or was rejected."""
        accepted = sorted(name for name in self._tables[self._needed[0]] if self._accepted(name))
        for name in asked:
            if name not in accepted:
                rejected = f"was rejected; see `{commands.isomill('shape', name)}`"
                raise SystemExit(f"error: {name} {rejected if name in self.left_out else 'is no shape of this study'}")
        return sorted(set(asked)) or accepted

    def split(self, name: str) -> str:
        """train, val or test."""
        return self._splits[name]

    def read(self, name: str):
        """One shape with all its arrays (`FinishedShape`)."""
        import numpy as np

        from pipeline.exchange.shape import FinishedShape
        from pipeline.jobs.work import read_value
        from pipeline.shape_arrays import shape_arrays

        rows = {i: table[name] for i, table in self._tables.items() if table[name][0].accepted}
        values = {instance: read_value(row, path, self._store).value for instance, (row, path) in rows.items()}
        mesh = values.pop("scale_to_off")
        frame = rows["scale_to_off"][0].figures
        category, _, shape = name.partition("/")
        arrays = shape_arrays(values)
        return FinishedShape(category, shape, self.split(name), np.array(frame["loc"]), frame["scale"], mesh, arrays)

    def _accepted(self, name: str) -> bool:
        return all(self._tables[instance][name][0].accepted for instance in self._needed)


def _needed(plan: Plan, format: str) -> list[str]:
    """Data stages a format cannot do without; signed distances bring their points. The frame comes with every one."""
    needed = ["scale_to_off", *NEEDS[format][0]]
    for instance in needed:
        if instance not in plan.instances:
            raise SystemExit(
                f"error: {format} is made of {instance}, which no experiment of this study uses; add one that does"
            )
    if "compute_sdf" in needed:
        needed += [instance for name, instance in plan.upstream("compute_sdf").items() if name.startswith("sets:")]
    return needed


@dataclass(frozen=True)
class Writer:
    """How a format of one file set per shape is written: files by their path below the output."""

    finished: Finished
    arguments: argparse.Namespace

    def shape(self, name: str) -> Mapping[str, bytes]:
        """The files of one shape, category/id."""
        from pipeline.exchange import deepsdf, onet, views

        shape, format = self.finished.read(name), self.arguments.format
        if format == "deepsdf":
            return deepsdf.shape_files(shape, self.finished.dataset)
        made = views.choy_files(shape.arrays) if format == "choy" else onet.shape_files(shape, self.arguments.float16)
        return {f"{name}/{file}": content for file, content in made.items()}

    def set(self, names: list[str]) -> Mapping[str, bytes]:
        """The files that the shapes share, such as split lists."""
        from pipeline.exchange import deepsdf, onet
        from pipeline.sources.taxonomy import NAMES

        rows = [(*name.split("/", 1), self.finished.split(name)) for name in names]
        if self.arguments.format == "deepsdf":
            return deepsdf.set_files(rows, self.finished.dataset)
        return onet.set_files(rows, NAMES) if self.arguments.format == "onet" else {}


def _write_files(finished: Finished, names: list[str], arguments: argparse.Namespace) -> None:
    writer = Writer(finished, arguments)
    for name in _shown(names):
        _put(arguments.output, writer.shape(name))
    _put(arguments.output, writer.set(names))


def _put(folder: Path, contents: Mapping[str, bytes]) -> None:
    for file, content in contents.items():
        if ".." in PurePosixPath(file).parts:
            raise SystemExit(f"error: {file} leads out of the folder")
        files.write_atomic(folder / file, content)


def _write_imnet(finished: Finished, names: list[str], folder: Path) -> None:
    from pipeline.exchange.imnet import write_set

    folder.mkdir(parents=True, exist_ok=True)
    for part, splits in (("train", ("train", "val")), ("test", ("test",))):
        chosen = [name for name in names if finished.split(name) in splits]
        if chosen:
            write_set(folder, part, (finished.read(name) for name in _shown(chosen)), len(chosen), finished.seed)


def _shown(names: list[str]) -> Iterator[str]:
    progress = Progress("export", len(names))
    for name in names:
        yield name
        progress.advance()
    progress.close()
