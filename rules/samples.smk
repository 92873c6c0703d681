# OFF → points on, near and around the surface, signed distances, voxels, rendered views.


rule sample_surface:
    input:
        unpack(upstream("sample_surface")),
    output:
        shard_ledger("sample_surface"),
    log:
        f"{LOGS}/sample_surface/{{category}}/{{shard}}.log",
    benchmark:
        f"{LOGS}/sample_surface/{{category}}/{{shard}}.tsv"
    conda:
        GEOMETRY_ENV
    threads: 4
    resources:
        mem_mb=worker_memory,
        runtime=240,
    params:
        fingerprint=fingerprint("sample_surface"),
    shell:
        RUN_SHARD


rule sample_boundary:
    input:
        unpack(upstream("sample_boundary/{sigma}")),
    output:
        shard_ledger("sample_boundary/{sigma}"),
    log:
        f"{LOGS}/sample_boundary/{{sigma}}/{{category}}/{{shard}}.log",
    benchmark:
        f"{LOGS}/sample_boundary/{{sigma}}/{{category}}/{{shard}}.tsv"
    conda:
        GEOMETRY_ENV
    threads: 4
    resources:
        mem_mb=worker_memory,
        runtime=240,
    params:
        fingerprint=fingerprint("sample_boundary/{sigma}"),
    shell:
        RUN_SHARD


rule sample_volume:
    input:
        unpack(upstream("sample_volume")),
    output:
        shard_ledger("sample_volume"),
    log:
        f"{LOGS}/sample_volume/{{category}}/{{shard}}.log",
    benchmark:
        f"{LOGS}/sample_volume/{{category}}/{{shard}}.tsv"
    conda:
        GEOMETRY_ENV
    threads: 4
    resources:
        mem_mb=worker_memory,
        runtime=240,
    params:
        fingerprint=fingerprint("sample_volume"),
    shell:
        RUN_SHARD


rule compute_sdf:
    input:
        unpack(upstream("compute_sdf")),
    output:
        shard_ledger("compute_sdf"),
    log:
        f"{LOGS}/compute_sdf/{{category}}/{{shard}}.log",
    benchmark:
        f"{LOGS}/compute_sdf/{{category}}/{{shard}}.tsv"
    conda:
        GEOMETRY_ENV
    threads: 4
    resources:
        mem_mb=worker_memory,
        runtime=240,
    params:
        fingerprint=fingerprint("compute_sdf"),
    shell:
        RUN_SHARD


rule voxelize:
    input:
        unpack(upstream("voxelize/{resolution}")),
    output:
        shard_ledger("voxelize/{resolution}"),
    log:
        f"{LOGS}/voxelize/{{resolution}}/{{category}}/{{shard}}.log",
    benchmark:
        f"{LOGS}/voxelize/{{resolution}}/{{category}}/{{shard}}.tsv"
    conda:
        GEOMETRY_ENV
    threads: 4
    resources:
        mem_mb=worker_memory,
        runtime=240,
    params:
        fingerprint=fingerprint("voxelize/{resolution}"),
    shell:
        RUN_SHARD


rule render_views:
    input:
        unpack(upstream("render_views")),
    output:
        shard_ledger("render_views"),
    log:
        f"{LOGS}/render_views/{{category}}/{{shard}}.log",
    benchmark:
        f"{LOGS}/render_views/{{category}}/{{shard}}.tsv"
    conda:
        GEOMETRY_ENV
    threads: 4
    resources:
        mem_mb=worker_memory,
        runtime=240,
    params:
        fingerprint=fingerprint("render_views"),
    shell:
        RUN_SHARD
