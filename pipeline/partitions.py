"""What Slurm's partitions allow, held against what rules ask for: a job beyond it is accepted and waits for ever."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline import slurm

# How the resources of rules are called, and how a profile sets them.
MINUTES, MEMORY, CPUS = "runtime", "mem_mb", "threads"


@dataclass(frozen=True)
class Partition:
    """One partition: the most minutes, MB and CPUs of one node that a job may ask for, by resource.

    A limit that is not set is missing. certain: no QoS of the partition may widen it.
    """

    name: str
    limits: Mapping[str, int]
    default: bool = False
    certain: bool = True


@dataclass(frozen=True)
class Request:
    """What jobs of one rule ask for, as (resource, amount); what cannot be told without a job is missing.

    partition: None for the cluster's default.
    """

    rule: str
    partition: str | None
    resources: tuple[tuple[str, int], ...]


def read_partitions() -> dict[str, Partition]:
    """The partitions of this machine's Slurm; none where there is no Slurm, or where it does not answer."""
    if not shutil.which("scontrol"):
        return {}
    try:
        text = slurm.ask("scontrol", "show", "partition", "--oneliner")
        nodes = slurm.ask("sinfo", "--noheader", "--exact", "--format=%R|%c|%m")
    except slurm.SlurmError:
        return {}
    return {found.name: found for found in parse_partitions(text, nodes)}


def parse_partitions(text: str, nodes: str) -> list[Partition]:
    """Read `scontrol show partition --oneliner` and, for the largest nodes, `sinfo` as "name|CPUs|MB"."""
    largest: dict[str, dict[str, int]] = {}
    for line in nodes.splitlines():
        name, cpus, memory = line.split("|")
        sizes = largest.setdefault(name, {CPUS: 0, MEMORY: 0})
        sizes[CPUS] = max(sizes[CPUS], int(cpus.rstrip("+")))
        sizes[MEMORY] = max(sizes[MEMORY], int(memory.rstrip("+")))
    return [_partition(line, largest) for line in text.splitlines() if line.strip()]


def _partition(line: str, largest: Mapping[str, Mapping[str, int]]) -> Partition:
    fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
    name = fields["PartitionName"]
    limits = dict(largest.get(name, {}))
    for field, resource in (("MaxMemPerNode", MEMORY), ("MaxCPUsPerNode", CPUS)):
        if fields.get(field, "").isdigit():  # else UNLIMITED
            limits[resource] = min(int(fields[field]), limits.get(resource, int(fields[field])))
    minutes = minutes_of(fields.get("MaxTime", "UNLIMITED"))
    if minutes is not None:
        limits[MINUTES] = minutes
    return Partition(name, limits, fields.get("Default") == "YES", fields.get("QoS", "N/A") == "N/A")


def minutes_of(time: str) -> int | None:
    """Slurm's "days-hours:minutes:seconds" in whole minutes; None for UNLIMITED."""
    if time in ("UNLIMITED", "INFINITE", "NONE"):
        return None
    days, _, clock = time.rpartition("-")
    hours, minutes, _ = clock.split(":")
    return 24 * 60 * int(days or 0) + 60 * int(hours) + int(minutes)


def beyond(requests: Iterable[Request], partitions: Mapping[str, Partition]) -> list[str]:
    """Sentences on requests that their partition never grants; none for partitions that a QoS may widen."""
    default = next((name for name, partition in partitions.items() if partition.default), None)
    # Rules that ask one partition for equally much share a sentence.
    alike: dict[tuple[str, tuple[tuple[str, int], ...]], list[str]] = {}
    for request in requests:
        partition = partitions.get(request.partition or default or "")
        if partition is None or not partition.certain:
            continue
        limits = partition.limits
        excess = tuple((name, amount) for name, amount in request.resources if amount > limits.get(name, amount))
        if excess:
            alike.setdefault((partition.name, excess), []).append(request.rule)
    return [_sentence(rules, excess, partitions[name]) for (name, excess), rules in alike.items()]


def _sentence(rules: Sequence[str], excess: Sequence[tuple[str, int]], partition: Partition) -> str:
    names = sorted(set(rules))
    asked = " and ".join(_quantity(name, amount) for name, amount in excess)
    limits = {name: partition.limits[name] for name, _ in excess}
    allowed = " and ".join(_quantity(name, limit) for name, limit in limits.items())
    resources = ", ".join(f"{name}: {limit}" for name, limit in limits.items() if name != CPUS)
    lines = []
    if resources:
        lines.append("set-resources: {" + ", ".join(f"{rule}: {{{resources}}}" for rule in names) + "}")
    if CPUS in limits:
        lines.append("set-threads: {" + ", ".join(f"{rule}: {limits[CPUS]}" for rule in names) + "}")
    verb = "asks" if len(names) == 1 else "ask"
    return (
        f"{', '.join(names)} {verb} for {asked}, and partition {partition.name} allows {allowed}: such jobs would "
        f"never start. Name a larger partition in the profile, or add there:  {';  '.join(lines)}"
    )


def _quantity(resource: str, amount: int) -> str:
    if resource == MINUTES:
        return f"{amount} minutes ({amount / 60:.3g} h)"
    return f"{amount:,} MB" if resource == MEMORY else f"{amount} CPUs"
