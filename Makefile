# The two commands of the README, `make demo` and `make test`, set up everything they need.
PYTHON ?= python3
CORES ?= $(shell nproc)
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-processors lint format setup clean-demo schema

demo: setup
	$(BIN)/snakemake --cores $(CORES) eval_all
	@echo "Open results/demo/report/index.html"

# Two files at a time: many tests run Snakemake, which has workers of its own.
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Tests whose outcome depends on the processor's arithmetic, as two other processors compute.
SENSITIVE := $(addprefix tests/models/test_,$(addsuffix .py,contract deepsdf deepsdf_completion imnet_gan imnet_svr \
	neuralpull neuralpull_image nmf nmf_svr onet)) tests/samples/test_votes.py tests/meshes/test_leaks.py
OLD := ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE ONEDNN_MAX_CPU_ISA=SSE41 OMP_NUM_THREADS=1
NEWER := ATEN_CPU_CAPABILITY=avx2 MKL_CBWR=AVX2 ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=2

test-processors: setup
	$(OLD) $(BIN)/python -m pytest -n 2 --dist loadfile $(SENSITIVE)
	$(NEWER) $(BIN)/python -m pytest -n 2 --dist loadfile $(SENSITIVE)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

schema: setup
	$(BIN)/isomill schema > resources/schema/workflow_config.schema.json

# System libraries first: without them nothing below works, and the message says what to type.
setup:
	@PYTHON=$(PYTHON) sh envs/system_libraries.sh
	@$(MAKE) --no-print-directory $(READY)

$(READY): envs/requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -q -r envs/requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	@touch $@
