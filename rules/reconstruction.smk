# Checkpoint + observation → mesh, for every test shape; or the codes alone. Checkpoint + chance → new shapes.


rule generate_meshes:
    input:
        checks=lambda wildcards: checked(PLAN.observation_instances(wildcards.experiment) or [PLAN.reference]),
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
        mem_mb=generation_memory,
        runtime=720,
        gpu=lambda wildcards: PLAN.gpus(wildcards.experiment),
    params:
        fingerprint=fingerprint("generate_meshes/{experiment}"),
        batched=lambda wildcards: "--batched" if PLAN.batched(wildcards.experiment) else "",
    shell:
        f"python -m pipeline generate-meshes --settings {SETTINGS}"
        " --experiment {wildcards.experiment} --members {input.members:q} --checkpoint {input.checkpoint:q} {params.batched} --output {output:q} --threads {threads} --memory {resources.mem_mb} --log {log:q}"
        f"{RECEIPT}"


rule encode_shapes:
    input:
        checks=lambda wildcards: checked(PLAN.observation_instances(wildcards.experiment) or [PLAN.reference]),
        members=f"{PLAN.results}/shapes/{PLAN.listing}/test/{{shard}}.jsonl",
        checkpoint=checkpoint_of,
    output:
        f"{PLAN.results}/codes/{{experiment}}/{{shard}}.h5",
    log:
        f"{LOGS}/encode_shapes/{{experiment}}/{{shard}}.log",
    benchmark:
        f"{LOGS}/encode_shapes/{{experiment}}/{{shard}}.tsv"
    wildcard_constraints:
        experiment=one_of(PLAN.encoding),
    conda:
        TORCH_ENV
    threads: 8
    resources:
        mem_mb=16000,
        runtime=240,
        gpu=1,
    params:
        fingerprint=fingerprint("encode_shapes/{experiment}"),
    shell:
        f"python -m pipeline encode-shapes --settings {SETTINGS}"
        " --experiment {wildcards.experiment} --members {input.members:q} --checkpoint {input.checkpoint:q} --output {output:q} --threads {threads} --log {log:q}"
        f"{RECEIPT}"


rule sample_shapes:
    input:
        checkpoint=checkpoint_of,
    output:
        f"{PLAN.results}/samples/{{experiment}}/{{block}}.jsonl",
    log:
        f"{LOGS}/sample_shapes/{{experiment}}/{{block}}.log",
    benchmark:
        f"{LOGS}/sample_shapes/{{experiment}}/{{block}}.tsv"
    wildcard_constraints:
        experiment=one_of(PLAN.generators),
    conda:
        TORCH_ENV
    threads: 8
    resources:
        mem_mb=16000,
        runtime=240,
        gpu=1,
    params:
        fingerprint=fingerprint("sample_shapes/{experiment}"),
        first=lambda wildcards: PLAN.sample_numbers(wildcards.experiment, wildcards.block)[0],
        shapes=lambda wildcards: PLAN.sample_numbers(wildcards.experiment, wildcards.block)[1],
    shell:
        f"python -m pipeline sample-shapes --settings {SETTINGS}"
        " --experiment {wildcards.experiment} --first {params.first} --count {params.shapes} --checkpoint {input.checkpoint:q} --output {output:q} --threads {threads} --log {log:q}"
        f"{RECEIPT}"
