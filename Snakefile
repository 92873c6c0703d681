import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.20")


# The default stands beside this file; a copy in the working directory takes its place.
own_config = Path("workflow_config.yaml")


configfile: own_config if own_config.exists() else Path(workflow.basedir) / own_config


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


rules_are_known(workflow, PLAN, sys.argv[1:])
