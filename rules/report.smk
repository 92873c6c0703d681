# Tables, pictures and provenance in one folder; and the targets people ask for.


rule make_report:
    input:
        summary=rules.summarise.output,
        checks=checked(PLAN.instances),
        samples=expand(f"{PLAN.results}/evaluation/samples/{{experiment}}.json", experiment=PLAN.generators),
        histories=expand(f"{PLAN.results}/training/{{experiment}}/history.csv", experiment=PLAN.trained),
    output:
        report(
            f"{PLAN.results}/report/index.html",
            category="Report",
            caption=f"{workflow.basedir}/resources/report/report.rst",
        ),
    log:
        f"{LOGS}/make_report.log",
    benchmark:
        f"{LOGS}/make_report.tsv"
    conda:
        REPORT_ENV
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        fingerprint=fingerprint("make_report"),
    shell:
        f"python -m pipeline make-report --settings {SETTINGS}" " --output {output:q} --log {log:q}" f"{RECEIPT}"


rule record_provenance:
    input:
        report=rules.make_report.output,
        summary=rules.summarise.output,
    output:
        f"{PLAN.results}/ro-crate-metadata.json",
    log:
        f"{LOGS}/record_provenance.log",
    benchmark:
        f"{LOGS}/record_provenance.tsv"
    conda:
        REPORT_ENV
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        fingerprint=fingerprint("record_provenance"),
    shell:
        f"python -m pipeline record-provenance --settings {SETTINGS}" " --output {output:q} --log {log:q}" f"{RECEIPT}"


# The last word: everything can be read by then, and nobody takes an empty comparison for a finished one.
rule check_tested:
    input:
        raw=rules.summarise.input.raw,
        report=rules.make_report.output,
    output:
        f"{PLAN.results}/evaluation/tested.json",
    log:
        f"{LOGS}/check_tested.log",
    benchmark:
        f"{LOGS}/check_tested.tsv"
    conda:
        REPORT_ENV
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        fingerprint=fingerprint("check_tested"),
    shell:
        f"python -m pipeline check-tested --settings {SETTINGS}"
        " --raw {input.raw:q} --report {input.report:q} --output {output:q} --log {log:q}"
        f"{RECEIPT}"


rule drop_products:
    input:
        lambda wildcards: PLAN.readers(wildcards.instance),
    output:
        f"{PLAN.results}/dropped/{{instance}}.json",
    log:
        f"{LOGS}/drop_products/{{instance}}.log",
    benchmark:
        f"{LOGS}/drop_products/{{instance}}.tsv"
    wildcard_constraints:
        instance=".+",
    conda:
        REPORT_ENV
    resources:
        mem_mb=1000,
        runtime=60,
    params:
        fingerprint=fingerprint("drop_products"),
    shell:
        f"python -m pipeline drop-products --settings {SETTINGS}"
        " --instance {wildcards.instance} --output {output:q} --log {log:q}"
        f"{RECEIPT}"


rule prepare_all:
    input:
        checked(PLAN.instances),


rule train_all:
    input:
        # Asked to train, experiments with published weights train from scratch under a name of their own.
        [checkpoint(name) for name in (*PLAN.trained, *PLAN.scratch)],


rule encode_all:
    input:
        expand(f"{PLAN.results}/codes/{{experiment}}/{{shard}}.h5", experiment=PLAN.encoding, shard=PLAN.test_shards),


rule generate_all:
    input:
        expand(
            f"{PLAN.results}/meshes/{{experiment}}/{{shard}}.jsonl",
            experiment=PLAN.reconstructing,
            shard=PLAN.test_shards,
        ),


rule quick_eval:
    input:
        expand(f"{PLAN.results}/evaluation/quick/{{experiment}}.csv", experiment=PLAN.quick),


rule report_all:
    input:
        rules.make_report.output,
        rules.check_tested.output,


rule eval_all:
    input:
        rules.report_all.input,
        rules.record_provenance.output,
        [f"{PLAN.results}/dropped/{instance}.json" for instance in PLAN.dropped],
