# Reconstructed and reference shapes → raw distances per shape → tables.


rule evaluate_meshes:
    input:
        checks=checked(PLAN.evaluation_instances),
        members=f"{PLAN.results}/shapes/{PLAN.listing}/test/{{shard}}.jsonl",
        predicted=f"{PLAN.results}/meshes/{{experiment}}/{{shard}}.jsonl",
    output:
        f"{PLAN.results}/evaluation/raw/{{experiment}}/{{shard}}.jsonl",
    log:
        f"{LOGS}/evaluate_meshes/{{experiment}}/{{shard}}.log",
    benchmark:
        f"{LOGS}/evaluate_meshes/{{experiment}}/{{shard}}.tsv"
    conda:
        GEOMETRY_ENV
    threads: 4
    resources:
        mem_mb=worker_memory,
        runtime=480,
    params:
        fingerprint=fingerprint("evaluate_meshes"),
    shell:
        f"python -m pipeline evaluate-meshes --settings {SETTINGS}"
        " --members {input.members:q} --predicted {input.predicted:q} --output {output:q} --workers {threads} --memory {resources.mem_mb} --log {log:q}"
        f"{RECEIPT}"


rule evaluate_samples:
    input:
        checks=checked([PLAN.reference]),
        samples=lambda wildcards: PLAN.sample_ledgers(wildcards.experiment),
        members=[PLAN.test_members(shard) for shard in PLAN.test_shards],
    output:
        f"{PLAN.results}/evaluation/samples/{{experiment}}.json",
    log:
        f"{LOGS}/evaluate_samples/{{experiment}}.log",
    benchmark:
        f"{LOGS}/evaluate_samples/{{experiment}}.tsv"
    wildcard_constraints:
        experiment=one_of(PLAN.generators),
    conda:
        GEOMETRY_ENV
    threads: 4
    resources:
        mem_mb=8000,
        runtime=480,
    params:
        fingerprint=fingerprint("evaluate_samples/{experiment}"),
    shell:
        f"python -m pipeline evaluate-samples --settings {SETTINGS}"
        " --experiment {wildcards.experiment} --samples {input.samples:q} --members {input.members:q} --output {output:q} --workers {threads} --log {log:q}"
        f"{RECEIPT}"


rule evaluate_fields:
    input:
        checks=lambda wildcards: checked(PLAN.quick_instances(wildcards.experiment)),
        members=[PLAN.test_members(shard) for shard in PLAN.test_shards],
        checkpoint=checkpoint_of,
    output:
        shapes=f"{PLAN.results}/evaluation/quick/{{experiment}}.csv",
        means=f"{PLAN.results}/evaluation/quick/{{experiment}}-means.csv",
    log:
        f"{LOGS}/evaluate_fields/{{experiment}}.log",
    benchmark:
        f"{LOGS}/evaluate_fields/{{experiment}}.tsv"
    wildcard_constraints:
        experiment=one_of(PLAN.quick),
    conda:
        TORCH_ENV
    threads: 8
    resources:
        mem_mb=16000,
        runtime=240,
        gpu=lambda wildcards: PLAN.gpus(wildcards.experiment),
    params:
        fingerprint=fingerprint("evaluate_fields/{experiment}"),
    shell:
        f"python -m pipeline evaluate-fields --settings {SETTINGS}"
        " --experiment {wildcards.experiment} --members {input.members:q} --checkpoint {input.checkpoint:q} --output {output.shapes:q} --means {output.means:q} --threads {threads} --log {log:q}"
        f"{RECEIPT}"


rule summarise:
    input:
        raw=expand(
            f"{PLAN.results}/evaluation/raw/{{experiment}}/{{shard}}.jsonl",
            experiment=PLAN.reconstructing,
            shard=PLAN.test_shards,
        ),
    output:
        shapes=report_item("shapes.csv", "One row per shape and method"),
        metrics=f"{PLAN.results}/evaluation/metrics.csv",
        parquet=f"{PLAN.results}/evaluation/metrics.parquet",
        summary=report_item("summary.csv", "Means and medians per method"),
        categories=report_item("categories.csv", "The same per category"),
    log:
        f"{LOGS}/summarise.log",
    benchmark:
        f"{LOGS}/summarise.tsv"
    conda:
        REPORT_ENV
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        fingerprint=fingerprint("summarise"),
    shell:
        f"python -m pipeline summarise --settings {SETTINGS}"
        f" --raw {{input.raw:q}} --output {PLAN.results}/evaluation --log {{log:q}}"
        f"{RECEIPT}"
