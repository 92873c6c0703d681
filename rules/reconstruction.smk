# Checkpoint + observation → mesh, for every test shape.


rule generate_meshes:
    input:
        checks=lambda wildcards: checked(PLAN.observation_instances(wildcards.experiment)),
        members=f"{PLAN.results}/shapes/{PLAN.listing}/test/{{shard}}.jsonl",
        checkpoint=checkpoint_of,
    output:
        f"{PLAN.results}/meshes/{{experiment}}/{{shard}}.jsonl",
    log:
        f"{LOGS}/generate_meshes/{{experiment}}/{{shard}}.log",
    benchmark:
        f"{LOGS}/generate_meshes/{{experiment}}/{{shard}}.tsv"
    conda:
        TORCH_ENV
    threads: 8
    resources:
        mem_mb=16000,
        runtime=720,
        gpu=lambda wildcards: int(PLAN.declaration(wildcards.experiment).trains == "gradient"),
    params:
        fingerprint=fingerprint("generate_meshes/{experiment}"),
    shell:
        f"python -m pipeline generate-meshes --settings {SETTINGS}"
        " --experiment {wildcards.experiment} --members {input.members:q} --checkpoint {input.checkpoint:q} --output {output:q} --threads {threads} --log {log:q}"
