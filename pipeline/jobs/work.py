"""What a job must know to make one stage's product of any shape, and how it makes it of one."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import commands, encoding, files, ledger, seeds
from pipeline.fingerprint import code_digest, key_of
from pipeline.progress import LOG
from pipeline.settings import Settings, canonical_json
from pipeline.stages import STAGES
from pipeline.store import DROPPED, Damaged, Entry, Store

REJECTED = "rejected"
LIMIT_MARK = "(limits: "  # in the reason of a shape that ran into a limit


@dataclass(frozen=True)
class Limits:
    """What one shape may take. They decide whether a shape is tried again, never what comes out."""

    seconds: float
    memory_mb: int


@dataclass(frozen=True)
class Work:
    """One stage with its settings.

    instance: its name in ledgers and seeds; of an experiment the stage alone, so that its name decides nothing.
    upstream: the names of its inputs, in the order the rule gives them. file: where all this stands.
    by_category: settings that differ for the shapes of some categories. They are in the keys of those shapes and not
    in the fingerprint, so that changing one category's makes only its shapes again.
    """

    instance: str
    fingerprint: str
    settings: dict[str, Any]
    random: bool
    seed: int
    libraries: dict[str, str]
    code: str
    file: str
    module: str = ""
    function: str = ""
    settings_class: str = ""
    format: str = "json"
    upstream: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    layout: Mapping[str, Any] = field(default_factory=dict)
    by_category: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def stage(self) -> str:
        return self.instance.split("/")[0]

    @property
    def reads_source(self) -> bool:
        """It reads raw files, not what other stages made."""
        return "members" in self.upstream

    def key(self, shape: str, digests: Mapping[str, Any]) -> str:
        """The key of one shape: fingerprint, content of its inputs and, for random stages, its stream."""
        stream = [self.seed, self.instance, shape] if self.random else None
        own = self._own_settings(shape)
        return key_of("shape", self.fingerprint, digests, stream, *([own] if own else []))

    def settings_of(self, shape: str) -> dict[str, Any]:
        """The settings of one shape, its category's laid over those of all."""
        return {**self.settings, **self._own_settings(shape)}

    def _own_settings(self, shape: str) -> Mapping[str, Any]:
        return self.by_category.get(shape.partition("/")[0], {})


def read_work(path: Path, same_code: bool = True) -> Work:
    """The work that a settings file describes. Raises SystemExit where another library version is installed.

    same_code: stop as well where the code is not the one the file was written for.
    """
    row = files.read_json(path)
    work = Work(
        **{name: row[name] for name in Work.__dataclass_fields__ if name in row and name != "file"}, file=str(path)
    )
    check_libraries(work.libraries)
    if same_code:
        check_code(row)
    return work


def check_code(row: Mapping[str, Any]) -> None:
    """Stop when the code is not what the fingerprint covers: it was edited after the run of this job began."""
    if row["code"] != code_digest(tuple(row["modules"])):
        raise SystemExit(
            f"the code of {row['instance']} was changed since this run started; nothing wrong was stored.\n"
            f"Type the same command again: it makes again what the change touches."
        )


def check_libraries(pinned: Mapping[str, str]) -> None:
    """Stop when a library that decides a result is not the one the fingerprint names."""
    for name, version in pinned.items():
        try:
            installed = public_version(importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            installed = "not"
        if installed != version:
            raise SystemExit(
                f"{name}: {installed} installed, but the results are pinned to {name} {version}.\n"
                f"Install the pinned one (pip install {name}=={version}) or change envs/requirements.lock, "
                f"which makes what depends on it again."
            )


def public_version(version: str) -> str:
    """2.13.0+cpu → 2.13.0: builds of one release count as one."""
    return version.split("+")[0]


def compute(work: Work, shape: str, values: Mapping[str, Any]):
    """Call the stage's function on the values of its inputs. Raises whatever the function raises."""
    module = importlib.import_module(work.module)
    settings_class: type[Settings] = getattr(module, work.settings_class)
    arguments = dict(_grouped(values), settings=settings_class(**work.settings_of(shape)))
    if work.random:
        arguments["rng"] = seeds.rng_for(work.seed, work.instance, shape)
    return getattr(module, work.function)(**arguments)


def _grouped(values: Mapping[str, Any]) -> dict[str, Any]:
    """Collect inputs named "products:sample_surface", … into one argument.

    Those named "sets:volume", "sets:boundary-0.1" … become two: the points as `sets`, the occupancies as `labels`.
    """
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        group, _, member = name.partition(":")
        if group == "sets":
            arguments.setdefault("sets", {})[member] = value["points"]
            arguments.setdefault("labels", {})[member] = value["occupancies"]
        elif member:
            arguments.setdefault(group, {})[member] = value
        else:
            arguments[name] = value
    return arguments


def make_row(work: Work, shape: str, key: str, values: Mapping[str, Any], store: Store) -> ledger.Row:
    """Compute one shape, store its product or its rejection, and give its ledger row."""
    from pipeline.arrays import Rejected

    try:
        product = compute(work, shape, values)
    except Rejected as reason:
        return reject(work, shape, key, str(reason), store)
    except (MemoryError, ImportError, OSError):
        raise  # the machine's fault, not the shape's: it is no reason to set the shape aside
    except Exception as error:
        LOG.error("%s %s: %s", work.instance, shape, traceback.format_exc())
        reason = f"unexpected {type(error).__name__}: {error} (a defect of Isomill; please report it with this shape)"
        return reject(work, shape, key, reason, store)
    entry = store.put(work.stage, key, encoding.encode(product, work.format), encoding.EXTENSIONS[work.format])
    return accepted_row(shape, entry, product.figures, product.status)


def accepted_row(shape: str, entry: Entry, figures: dict, status: str) -> ledger.Row:
    return ledger.Row(shape, status, entry.key, entry.file, entry.digest, entry.size, figures=figures)


def reject(work: Work, shape: str, key: str, reason: str, store: Store, limits: Limits | None = None) -> ledger.Row:
    """Write a rejection into the store, so that the shape is not tried again until code or settings change.

    limits: given when the shape ran into one of them; a later run with wider ones tries again.
    """
    row = {"reason": reason, "limits": [limits.seconds, limits.memory_mb] if limits else None}
    content = encoding.encode(_Json({"reason": reason}, row), "json")
    store.put(work.stage, key, content, REJECTED)
    return ledger.Row(shape, REJECTED, key, reason=reason, stage=work.instance)


@dataclass(frozen=True)
class _Json:
    value: Any
    figures: dict[str, Any]
    status: str = REJECTED


def stored_row(work: Work, shape: str, key: str, store: Store, limits: Limits) -> ledger.Row | None:
    """The row of a shape whose product, or rejection, is in the store; None if it must be made."""
    entry = store.have(work.stage, key)
    if entry is None:
        return None
    if entry.extension == DROPPED:
        return _dropped_row(shape, entry, store)
    try:
        content = store.get(entry.file)
    except Damaged as problem:
        LOG.warning("%s: %s; it is made again", shape, problem)
        store.discard(entry)
        return None
    if entry.extension == REJECTED:
        figures, _ = encoding.figures_of(content, "json")
        reached = figures["limits"]
        if reached and (limits.seconds > reached[0] or limits.memory_mb > reached[1]):
            store.discard(entry)
            return None
        return ledger.Row(shape, REJECTED, key, reason=figures["reason"], stage=work.instance)
    figures, status = encoding.figures_of(content, work.format)
    return accepted_row(shape, entry, figures, status)


def drop_note(row: ledger.Row) -> bytes:
    """What stays of a product whose file is dropped: all of its row but the shape's name."""
    return canonical_json({"file": row.file, "size": row.size, "status": row.status, "figures": row.figures}).encode()


def _dropped_row(shape: str, entry: Entry, store: Store) -> ledger.Row:
    note = json.loads(store.note(entry.file))
    return ledger.Row(
        shape, note["status"], entry.key, note["file"], entry.digest, note["size"], figures=note["figures"]
    )


def read_value(row: ledger.Row, path: str, store: Store):
    """The value of a stored product, made again from its recorded inputs if its file is missing or damaged.

    path: the ledger the row stands in. Raises Damaged where it cannot be made again with the recorded digest.
    """
    try:
        content = store.get(row.file)
    except Damaged as problem:
        if store.dropped(row.file):
            LOG.info("%s: %s was dropped; it is made again from its inputs", row.shape, row.file)
        else:
            LOG.warning("%s: %s; it is made again from its inputs", row.shape, problem)
        content = _remade(row, path, store)
    return encoding.decode(content, _format(row))


def _format(row: ledger.Row) -> str:
    """The format of a stored file; meshes of methods and measurements are named by their extension."""
    stage = STAGES.get(row.file.split("/")[0])
    return stage.format if stage else row.file.rsplit(".", 1)[1]


def _remade(row: ledger.Row, path: str, store: Store) -> bytes:
    header = ledger.read(Path(path)).header
    if not header.get("remake", False):
        repair = commands.isomill("store", "repair")
        raise Damaged(f"{row.file} cannot be made again here; run `{repair}` and the same command again")
    # The digest decides whether what is made is what was; other code may well give it.
    work = read_work(Path(header["settings"]), same_code=False)
    content = _computed_again(work, row, header["inputs"], store)
    if files.digest_of(content) != row.digest:
        raise Damaged(
            f"{row.shape}: {row.file} was made again but came out different (other code or libraries than then); "
            f"run `{commands.isomill('store', 'repair')}` and the same command again"
        )
    store.put(work.stage, row.key, content, encoding.EXTENSIONS[work.format])
    LOG.info("%s: %s is whole again", row.shape, row.file)
    return content


def _computed_again(work: Work, row: ledger.Row, inputs: Mapping[str, list[str]], store: Store) -> bytes:
    from pipeline.arrays import Rejected

    try:
        if work.reads_source:
            values = source_values(find_member(inputs["members"], row.shape), work.stage)
        else:
            values = input_values(row.shape, inputs, store)
        return encoding.encode(compute(work, row.shape, values), work.format)
    except Rejected as reason:
        raise Damaged(f"{row.file} cannot be made again: {reason}") from None


def input_values(shape: str, inputs: Mapping[str, list[str]], store: Store) -> dict[str, Any]:
    """Argument name → value of one shape's inputs, from the ledgers that hold its rows."""
    values = {}
    for argument, paths in inputs.items():
        for path in paths:
            row = ledger.read(Path(path)).rows.get(shape)
            if row is not None:
                values[argument] = read_value(row, path, store).value
    return values


def find_member(paths: list[str], shape: str) -> dict[str, Any]:
    """The line of a member file that says where a shape's raw file is."""
    for path in paths:
        for member in files.read_lines(Path(path)):
            if member["shape"] == shape:
                return member
    raise Damaged(f"{shape} is not in {', '.join(paths)} any more")


def source_values(member: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """The arguments of a stage that reads raw files, for one shape. Raises Rejected where its file cannot be read."""
    from pipeline.arrays import Rejected
    from pipeline.sources.prepared import read_part

    if member["reason"]:
        raise Rejected(member["reason"])
    raw = read_part(member["location"], stage)
    return {"content": raw.content, "name": raw.name, "companions": raw.companions}
