"""What Slurm's partitions allow is read as Slurm prints it, and held against what the rules and the profile ask for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline import partitions
from pipeline.config import ROOT
from pipeline.partitions import Partition, Request, beyond, minutes_of, parse_partitions

# `scontrol show partition --oneliner` of Slurm 22.05, what is not read left out.
SCONTROL = """\
PartitionName=cpu AllowQos=ALL Default=YES QoS=N/A MaxTime=1-00:00:00 MaxCPUsPerNode=UNLIMITED State=UP \
JobDefaults=(null) DefMemPerCPU=1000 MaxMemPerNode=UNLIMITED TRES=cpu=2,mem=22944M,node=1,billing=2
PartitionName=gpu AllowQos=ALL Default=NO QoS=N/A MaxTime=12:00:00 MaxCPUsPerNode=6 State=UP MaxMemPerNode=12000
PartitionName=long AllowQos=ALL Default=NO QoS=long MaxTime=01:00:00 MaxCPUsPerNode=1 State=UP MaxMemPerNode=1
PartitionName=free AllowQos=ALL Default=NO QoS=N/A MaxTime=UNLIMITED MaxCPUsPerNode=UNLIMITED MaxMemPerNode=UNLIMITED
"""
SINFO = "cpu|2|22944\ncpu|8|8000\ngpu|64|256000+\nlong|64|256000\n"


@pytest.fixture
def found() -> dict[str, Partition]:
    return {partition.name: partition for partition in parse_partitions(SCONTROL, SINFO)}


def test_limits_are_those_of_the_partition_and_of_its_largest_node(found):
    assert found["cpu"] == Partition("cpu", {"threads": 8, "mem_mb": 22944, "runtime": 1440}, default=True)
    assert found["gpu"].limits == {"threads": 6, "mem_mb": 12000, "runtime": 720}
    assert found["free"].limits == {}
    assert not found["long"].certain


@pytest.mark.parametrize(
    ("time", "minutes"),
    [("1-00:00:00", 1440), ("2-12:30:00", 3630), ("00:10:00", 10), ("100:00:59", 6000), ("UNLIMITED", None)],
)
def test_slurms_times_are_minutes(time, minutes):
    assert minutes_of(time) == minutes


def test_the_sentence_names_the_rule_both_figures_and_what_to_write(found):
    training = Request("train_model", "gpu", (("runtime", 2880), ("mem_mb", 16000), ("threads", 8)))
    assert beyond([training], found) == [
        "train_model asks for 2880 minutes (48 h) and 16,000 MB and 8 CPUs, and partition gpu allows "
        "720 minutes (12 h) and 12,000 MB and 6 CPUs: such jobs would never start. Name a larger partition in the "
        "profile, or add there:  set-resources: {train_model: {runtime: 720, mem_mb: 12000}};  "
        "set-threads: {train_model: 6}"
    ]


def test_rules_that_ask_alike_share_a_sentence(found):
    requests = [Request(rule, None, (("runtime", 60), ("threads", 9))) for rule in ("voxelize", "compute_sdf")]
    other = Request("summarise", None, (("runtime", 2000), ("threads", 1)))
    first, second = beyond([*requests, other], found)
    assert first.startswith("compute_sdf, voxelize ask for 9 CPUs, and partition cpu allows 8 CPUs:")
    assert first.endswith("set-threads: {compute_sdf: 8, voxelize: 8}")
    assert second.startswith("summarise asks for 2000 minutes (33.3 h)")


@pytest.mark.parametrize(
    ("partition", "resources", "count"),
    [
        ("gpu", (("runtime", 720), ("mem_mb", 12000), ("threads", 6)), 0),
        ("gpu", (("runtime", 721),), 1),
        (None, (("runtime", 1441),), 1),
        (None, (("runtime", 1440),), 0),
        ("free", (("runtime", 10**6), ("mem_mb", 10**9)), 0),
        ("long", (("runtime", 10**6),), 0),
        ("of another cluster", (("runtime", 10**6),), 0),
        ("gpu", (), 0),
    ],
    ids=["just fits", "a minute more", "default", "fits default", "no limits", "widened by QoS", "unknown", "untold"],
)
def test_only_what_is_surely_beyond_is_told(found, partition, resources, count):
    assert len(beyond([Request("rule", partition, resources)], found)) == count


def put_fakes(folder: Path) -> Path:
    """`scontrol` and `sinfo` that print the texts above."""
    folder.mkdir()
    for name, text in (("scontrol", SCONTROL), ("sinfo", SINFO)):
        program = folder / name
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\n")
        program.chmod(0o755)
    return folder


def test_without_slurm_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert partitions.read_partitions() == {}
    monkeypatch.setenv("PATH", f"{put_fakes(tmp_path / 'bin')}:/usr/bin:/bin")
    assert partitions.read_partitions()["gpu"].limits["runtime"] == 720
    (tmp_path / "bin" / "sinfo").write_text("#!/bin/sh\nexit 1\n")
    assert partitions.read_partitions() == {}


@pytest.mark.workflow
def test_a_dry_run_with_the_clusters_profile_tells_what_would_never_start(tmp_path):
    """The profile as it is shipped; its partitions are the fakes'."""
    fakes = put_fakes(tmp_path / "bin")
    program = Path(sys.executable).with_name("snakemake")
    done = subprocess.run(
        [program, "-n", "--quiet", "--snakefile", ROOT / "Snakefile", "--profile", ROOT / "profiles" / "slurm"],
        cwd=tmp_path,
        env={"PATH": f"{fakes}:/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told = [line.split(" for ")[0] for line in done.stderr.splitlines() if "would never start" in line]
    assert told == ["train_model asks", "generate_meshes asks"]
    assert "train_model asks for 2880 minutes (48 h) and 16,000 MB and 8 CPUs" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"bin", ".snakemake", ".cache"}


# --- the profile that is shipped


def rules() -> dict[str, str]:
    """Rule → the MB it asks for, as the rule files say it."""
    found, rule = {}, ""
    for path in sorted((ROOT / "rules").glob("*.smk")):
        for line in path.read_text().splitlines():
            words = line.strip()
            if words.startswith("rule ") and words.endswith(":"):
                rule = words.removeprefix("rule ").rstrip(":")
            elif words.startswith("mem_mb="):
                found[rule] = words.removeprefix("mem_mb=").rstrip(",")
    return found


def test_memory_grows_with_each_attempt_from_what_the_rule_asks_for():
    profile = yaml.safe_load((ROOT / "profiles" / "slurm" / "profile.yaml").read_text())
    own = rules()
    assert len(own) > 15
    asked = {rule: lines["mem_mb"] for rule, lines in profile["set-resources"].items() if "mem_mb" in lines}
    # Those that count workers reckon with the attempt in their own function.
    fixed = {rule: megabytes for rule, megabytes in own.items() if megabytes.isdigit()}
    assert {*own.values()} - {*fixed.values()} == {"worker_memory", "generation_memory"}
    assert asked == {rule: f"{megabytes} * attempt" for rule, megabytes in fixed.items()}
    assert profile["retries"] == 2
