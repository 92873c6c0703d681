from snakemake.utils import min_version

min_version("9.20")


configfile: "workflow_config.yaml"


include: "rules/common.smk"
include: "rules/sources.smk"
include: "rules/meshes.smk"
include: "rules/samples.smk"
include: "rules/training.smk"
include: "rules/reconstruction.smk"
include: "rules/evaluation.smk"
include: "rules/report.smk"


localrules:
    all,
    prepare_all,
    train_all,
    generate_all,
    eval_all,
    report_all,


rule all:
    default_target: True
    input:
        rules.eval_all.input,
