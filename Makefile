# sunpipe: one line each over the command line. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= configs/demo.toml
TEST_JOBS ?= 2
export SUNPIPE_ROOT ?= $(CURDIR)/demo

.PHONY: help install demo test test-fast download lint format \
        monitor dashboards cluster-up cluster-down clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(VENV)/.installed  ## make the virtual environment with the tested versions

$(VENV)/.installed: pyproject.toml constraints.txt install.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" ./install.sh

demo: install  ## the whole pipeline on bundled real data, on the CPU; prints the report's path
	@$(BIN)/sunpipe pipeline --local --config configs/demo.toml

test: install  ## all tests; what this machine lacks is skipped with the command that installs it
	@$(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-fast: install  ## unit tests only
	@$(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder tests/unit

download: install  ## fetch what CONFIG=configs/data_*.toml asks JSOC for into the archive
	@$(BIN)/sunpipe fetch --config $(if $(filter file,$(origin CONFIG)),configs/download.toml,$(CONFIG))

lint: install  ## style, types, spelling, shell scripts
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/codespell
	@if command -v shellcheck >/dev/null; then shellcheck -x jobs/*.sh install.sh .ci/run; \
	else echo "shellcheck is not installed: apt-get install shellcheck"; fi

format: install  ## rewrite the code in the house style
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

monitor: install  ## metrics, a real Prometheus with the alerts, and a page of all dashboards, for SUNPIPE_ROOT
	@$(BIN)/sunpipe monitor demo

dashboards: install  ## make the Grafana dashboards again from their code
	@$(BIN)/sunpipe monitor dashboards --out hpc/monitor/grafana

cluster-up: install  ## start a real four-node Slurm on this one machine
	@$(BIN)/sunpipe cluster up

cluster-down: install  ## stop it and what it started
	@$(BIN)/sunpipe cluster down

clean:  ## remove the environment and the demo's data
	rm -rf $(VENV) demo
