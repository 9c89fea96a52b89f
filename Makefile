# Two commands on a fresh machine: `make demo` and `make test`. Everything else is a convenience.
PYTHON ?= python3
VENV ?= .venv
export PATH := $(abspath $(VENV))/bin:$(PATH)

export MLFLOW_DISABLE_TELEMETRY := true

READY := $(VENV)/.installed

.PHONY: help env demo test lint params bench clean
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

test: $(READY) ## run the tests
	python -m pytest

lint: $(READY) ## check the style
	ruff check .

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
