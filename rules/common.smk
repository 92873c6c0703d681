# Configuration, plan and what every rule file uses; no rules.
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)
# profiles/default looks at configuration files with the package that is installed, which may be another checkout's.
# What is planned, and what fingerprints cover, is the code beside this Snakefile.
loaded = sys.modules.get("pipeline")
if loaded is not None and Path(loaded.__file__).parent.parent != Path(workflow.basedir):
    for name in [name for name in sys.modules if name.partition(".")[0] == "pipeline"]:
        del sys.modules[name]

try:
    from pipeline.jobs.parse import prepare
    from pipeline.jobs.start import first_job, rules_are_known
except ModuleNotFoundError as missing:
    from pipeline.environment import wrong_python

    raise WorkflowError(wrong_python(missing)) from None

PLAN = prepare(config, workflow, sys.argv[1:])
# The settings of a job, found by its fingerprint; for the shell line of a rule.
SETTINGS = f"{PLAN.results}/settings/{{params.fingerprint}}.json"
LOGS = f"logs/{PLAN.study.dataset}"
GEOMETRY_ENV = f"{workflow.basedir}/envs/geometry.yaml"
TORCH_ENV = f"{workflow.basedir}/envs/torch.yaml"
REPORT_ENV = f"{workflow.basedir}/envs/report.yaml"
# The end of every shell line: what the job's receipt names (pipeline/receipts.py), by which its outputs are current.
RECEIPT = " --receipt-from {input:q} --receipt-of {output:q}"
# All data stages: the job finds its inputs by the same table that `upstream` reads.
RUN_SHARD = (
    f"python -m pipeline run-shard --settings {SETTINGS}"
    " --output {output:q} --workers {threads} --memory {resources.mem_mb} --log {log:q} --inputs {input:q}"
    f"{RECEIPT}"
)


onstart:
    first_job(workflow)


wildcard_constraints:
    category="[^/]+",
    shard="[0-9]+",
    archive="[^/]+",
    experiment="[^/]+",
    sigma="[^/]+",
    resolution="[0-9]+",
    block="[0-9]+",


def fingerprint(name):
    """The digest of what decides a stage's result: its rule's only parameter."""
    return lambda wildcards: PLAN.fingerprint(name.format(**wildcards))


def worker_memory(wildcards, threads, attempt):
    """MB of a job with one worker a thread: each may take what a shape may. A profile that allows the job less gets
    fewer workers; where the system killed one, a retry asks for more."""
    return threads * PLAN.study.limits.memory_mb * attempt


def generation_memory(wildcards, threads, attempt):
    """MB of a generation: of workers where each shape is made by itself, else of a model and a batch of shapes."""
    if PLAN.batched(wildcards.experiment):
        return 16000 * attempt
    return worker_memory(wildcards, threads, attempt)


def shard_ledger(instance):
    """The ledger of an instance for one shard."""
    return f"{PLAN.results}/data/{instance}/{{category}}/{{shard}}.jsonl"


def upstream(instance):
    """The ledgers that an instance reads, for the same shard."""

    def ledgers(wildcards):
        inputs = PLAN.upstream(instance.format(**wildcards))
        if not inputs:
            return {"members": PLAN.members(wildcards.category, wildcards.shard)}
        return {
            name.replace(":", "_"): PLAN.ledger(i, wildcards.category, wildcards.shard) for name, i in inputs.items()
        }

    return ledgers


def checked(instances):
    """The verdicts on all stages that some instances stand on. They carry the digests of the ledgers of every shard:
    naming one file a stage instead of one a shard keeps the DAG small (benchmarks/dag.py)."""
    return [PLAN.check(i) for i in PLAN.with_upstream(instances)]


def one_of(names):
    """A wildcard constraint: one of the names, or nothing at all."""
    return "|".join(map(re.escape, names)) or "(?!)"


def checkpoint(experiment):
    return f"{PLAN.results}/training/{experiment}/checkpoint.json"


def checkpoint_of(wildcards):
    """The weights an experiment answers with; none where there is nothing to train."""
    return [checkpoint(wildcards.experiment)] if wildcards.experiment in PLAN.trained_or_fetched else []


def parent_of(wildcards):
    """The weights of the experiment that one builds on, if it builds on any."""
    return [checkpoint(name) for name in [PLAN.parent(wildcards.experiment)] if name]


def archive_to_fetch(wildcards):
    """The archive the demo makes; others are fetched from their address."""
    if PLAN.study.source.kind != "demo":
        return []
    return f"{PLAN.results}/source/{wildcards.archive}.zip"


def report_item(name, title):
    """A table of the evaluation that `snakemake --report` shows too."""
    return report(f"{PLAN.results}/evaluation/{name}", category="Evaluation", labels={"table": title})
