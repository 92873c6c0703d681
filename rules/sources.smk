# Where raw shapes come from: archives, the catalogue and the members of every shard.

if PLAN.study.source.kind == "demo":

    rule make_demo_archive:
        output:
            archive=f"{PLAN.results}/source/{{archive}}.zip",
            digest=f"{PLAN.results}/source/{{archive}}.zip.sha256",
        log:
            f"{LOGS}/make_demo_archive/{{archive}}.log",
        benchmark:
            f"{LOGS}/make_demo_archive/{{archive}}.tsv"
        conda:
            GEOMETRY_ENV
        resources:
            mem_mb=1000,
            runtime=10,
        params:
            fingerprint=fingerprint("make_demo_archive"),
        shell:
            f"python -m pipeline make-demo-archive --settings {SETTINGS}"
            " --category {wildcards.archive} --output {output.archive:q} --digest {output.digest:q} --log {log:q}"
            f"{RECEIPT}"


rule download_source:
    input:
        archive_to_fetch,
    output:
        f"{PLAN.results}/source/{{archive}}.json",
    log:
        f"{LOGS}/download_source/{{archive}}.log",
    benchmark:
        f"{LOGS}/download_source/{{archive}}.tsv"
    conda:
        GEOMETRY_ENV
    resources:
        mem_mb=1000,
        runtime=1440,
    params:
        fingerprint=fingerprint("download_source"),
    shell:
        f"python -m pipeline download-source --settings {SETTINGS}"
        " --archive {wildcards.archive} --made {input:q} --output {output:q} --log {log:q}"
        f"{RECEIPT}"


rule list_shapes:
    input:
        expand(f"{PLAN.results}/source/{{archive}}.json", archive=PLAN.archives),
    output:
        catalogue=PLAN.catalogue,
        members=[PLAN.members(*shard) for shard in PLAN.shards],
        test=[PLAN.test_members(shard) for shard in PLAN.test_shards],
    log:
        f"{LOGS}/list_shapes.log",
    benchmark:
        f"{LOGS}/list_shapes.tsv"
    conda:
        GEOMETRY_ENV
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        fingerprint=fingerprint("list_shapes"),
    shell:
        f"python -m pipeline list-shapes --settings {SETTINGS}"
        " --archives {input:q} --catalogue {output.catalogue:q} --log {log:q}"
        f"{RECEIPT}"
