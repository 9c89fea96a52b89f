# Two commands on a fresh machine: `make demo` and `make test`. While you work: `make check`. Everything else is a convenience.
PYTHON ?= python3
VENV ?= .venv
export PATH := $(abspath $(VENV))/bin:$(PATH)

export MLFLOW_DISABLE_TELEMETRY := true

# Processes that share the tests. Each computes with one thread and needs up to 2 GB.
WORKERS ?= 2
PYTEST := python -m pytest --numprocesses $(WORKERS) --dist loadgroup --no-loadscope-reorder

READY := $(VENV)/.installed

.PHONY: help env demo check test lint params bench clean
help: ## show what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

env: $(READY) ## create the environment (several GB: PyTorch), once

$(READY): constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed, found " + sys.version)'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(READY) ## run the default pipeline: images, detectors, metrics, report, MLflow
	dvc repro
	python stages/track.py
	nullscope summary

check: lint ## check the style and run the fast tests: at most two minutes on two cores
	$(PYTEST) -q -m 'not (e2e or slow or dispatch or browser)'

test: lint ## everything that CI runs: at most ten minutes on two cores
	$(PYTEST)

lint: $(READY) ## check the style
	ruff check .
	ruff format --check .

params: $(READY) ## compose params.yaml from conf/, as `dvc exp run` does
	python -c "from dvc.utils.hydra import compose_and_dump as c; c('params.yaml', '$(CURDIR)/conf', None, 'config', '.', [])"

bench: $(READY) ## measure
	python bench/patch_selection.py
	python bench/shard_reading.py
	python bench/training_step.py
	python bench/captioning.py
	python bench/scoring.py
	python bench/start_up.py

clean: ## delete everything the pipeline made, the cache included
	rm -rf data models scores reports .nullscope .dvc/cache .dvc/tmp mlflow.db mlartifacts
