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
        mem_mb=8000,
        runtime=480,
    params:
        fingerprint=fingerprint("evaluate_meshes"),
    shell:
        f"python -m pipeline evaluate-meshes --settings {SETTINGS}"
        " --members {input.members:q} --predicted {input.predicted:q} --output {output:q} --workers {threads} --log {log:q}"


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
