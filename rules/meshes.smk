# Raw mesh → checked → watertight → OFF in the canonical frame.


rule extract_meshes:
    input:
        members=f"{PLAN.results}/shapes/{PLAN.listing}/members/{{category}}/{{shard}}.jsonl",
    output:
        shard_ledger("extract_meshes"),
    log:
        f"{LOGS}/extract_meshes/{{category}}/{{shard}}.log",
    benchmark:
        f"{LOGS}/extract_meshes/{{category}}/{{shard}}.tsv"
    conda:
        GEOMETRY_ENV
    threads: 4
    resources:
        mem_mb=worker_memory,
        runtime=120,
    params:
        fingerprint=fingerprint("extract_meshes"),
    shell:
        RUN_SHARD


rule make_watertight:
    input:
        unpack(upstream("make_watertight")),
    output:
        shard_ledger("make_watertight"),
    log:
        f"{LOGS}/make_watertight/{{category}}/{{shard}}.log",
    benchmark:
        f"{LOGS}/make_watertight/{{category}}/{{shard}}.tsv"
    conda:
        GEOMETRY_ENV
    threads: 4
    resources:
        mem_mb=worker_memory,
        runtime=480,
    params:
        fingerprint=fingerprint("make_watertight"),
    shell:
        RUN_SHARD


rule scale_to_off:
    input:
        unpack(upstream("scale_to_off")),
    output:
        shard_ledger("scale_to_off"),
    log:
        f"{LOGS}/scale_to_off/{{category}}/{{shard}}.log",
    benchmark:
        f"{LOGS}/scale_to_off/{{category}}/{{shard}}.tsv"
    conda:
        GEOMETRY_ENV
    threads: 4
    resources:
        mem_mb=worker_memory,
        runtime=60,
    params:
        fingerprint=fingerprint("scale_to_off"),
    shell:
        RUN_SHARD
