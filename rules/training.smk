# The verdict on rejected shapes, then one training per experiment, or published weights in its place.


rule check_rejected:
    input:
        lambda wildcards: PLAN.ledgers(wildcards.instance),
    output:
        f"{PLAN.results}/checks/{{instance}}.json",
    log:
        f"{LOGS}/check_rejected/{{instance}}.log",
    benchmark:
        f"{LOGS}/check_rejected/{{instance}}.tsv"
    wildcard_constraints:
        instance=".+",
    conda:
        GEOMETRY_ENV
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        fingerprint=fingerprint("check_rejected"),
    shell:
        f"python -m pipeline check-rejected --settings {SETTINGS}"
        " --instance {wildcards.instance} --output {output:q} --log {log:q}"
        f"{RECEIPT}"


rule train_model:
    input:
        checks=lambda wildcards: checked(PLAN.training_instances(wildcards.experiment)),
        catalogue=PLAN.catalogue,
        parent=parent_of,
    output:
        checkpoint=f"{PLAN.results}/training/{{experiment}}/checkpoint.json",
        weights=f"{PLAN.results}/training/{{experiment}}/weights.safetensors",
        history=f"{PLAN.results}/training/{{experiment}}/history.csv",
    log:
        f"{LOGS}/train_model/{{experiment}}.log",
    benchmark:
        f"{LOGS}/train_model/{{experiment}}.tsv"
    wildcard_constraints:
        experiment=one_of([*PLAN.trained, *PLAN.scratch]),
    conda:
        TORCH_ENV
    threads: 8
    resources:
        mem_mb=16000,
        runtime=2880,
        gpu=lambda wildcards: PLAN.gpus(wildcards.experiment, training=True),
    params:
        fingerprint=fingerprint("train_model/{experiment}"),
    shell:
        f"python -m pipeline train-model --settings {SETTINGS}"
        " --experiment {wildcards.experiment} --catalogue {input.catalogue:q} --parent {input.parent:q} --output {output.checkpoint:q} --threads {threads} --log {log:q}"
        f"{RECEIPT}"


rule fetch_weights:
    input:
        lambda wildcards: PLAN.weights_file(wildcards.experiment),
    output:
        checkpoint=f"{PLAN.results}/training/{{experiment}}/checkpoint.json",
        weights=f"{PLAN.results}/training/{{experiment}}/weights.safetensors",
    log:
        f"{LOGS}/fetch_weights/{{experiment}}.log",
    benchmark:
        f"{LOGS}/fetch_weights/{{experiment}}.tsv"
    wildcard_constraints:
        experiment=one_of(PLAN.fetched),
    conda:
        TORCH_ENV
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        fingerprint=fingerprint("fetch_weights/{experiment}"),
    shell:
        f"python -m pipeline fetch-weights --settings {SETTINGS}"
        " --experiment {wildcards.experiment} --output {output.checkpoint:q} --log {log:q}"
        f"{RECEIPT}"
