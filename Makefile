# One command per thing to do. `make` alone lists them.
#
# Needs Python 3.11 (or 3.12) and make, nothing else: everything is installed into .venv from requirements.lock,
# whose every file is checked against a SHA-256. Other package index, mirror or wheel folder: set pip's and uv's
# usual environment variables. Other interpreter: make PYTHON=/path/to/python3.11

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
# The installation as it was last completed: older than the lock or the project file means `setup` runs again.
STAMP := $(VENV)/.installed

# Interpreters to try, in order. The first that is 3.11 or 3.12 wins.
PYTHON ?= python3.11 python3.12 python3 python

# No library of ours may phone home from a build or a test.
export MLFLOW_DISABLE_TELEMETRY := true
export GX_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1

.PHONY: help
help: ## List these targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' Makefile

# --- install ---------------------------------------------------------------------------------------------------

.PHONY: setup
setup: $(STAMP) ## Install everything into .venv, from the lock, with hashes

$(BIN)/python:
	@found=; for name in $(PYTHON); do \
	  if "$$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
	      >/dev/null 2>&1; then found=$$name; break; fi; done; \
	if [ -z "$$found" ]; then \
	  echo "setup: none of '$(PYTHON)' is Python 3.11 or 3.12 with its venv module." >&2; \
	  echo "       Install it (Debian, Ubuntu: apt install python3.11 python3.11-venv), or name it:" >&2; \
	  echo "       make setup PYTHON=/path/to/python3.11" >&2; exit 1; fi; \
	echo "setup: $(VENV) with $$found"; rm -rf $(VENV); "$$found" -m venv $(VENV)

# uv installs the rest in a fraction of pip's time. It is pinned by the lock like everything else, and so is setuptools,
# which builds the few packages that come as source: pip takes these two entries, hashes and all. Without build isolation
# no build fetches anything more, so nothing is ever installed that the lock doesn't name.
$(STAMP): requirements.lock pyproject.toml | $(BIN)/python
	@if [ ! -x $(BIN)/uv ]; then \
	  awk '/^[^ #]/ {taken = /^(setuptools|uv)==/} taken && !/^ *#/' requirements.lock > $(VENV)/first.txt; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
	    -r $(VENV)/first.txt; fi
	@echo "setup: installing from requirements.lock (some 8 GB with the CUDA libraries; minutes the first time)"
	@if [ -t 2 ]; then quiet=; else quiet=--quiet; fi; \
	  $(BIN)/uv pip sync $$quiet --python $(BIN)/python --no-build-isolation --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "setup: done. The command is $(BIN)/retiderm"

# --- use -------------------------------------------------------------------------------------------------------

.PHONY: demo
demo: setup ## Both tasks from made-up data to a served, explained answer (five minutes at most)
	@$(BIN)/retiderm demo

.PHONY: serve
serve: setup ## Serve what has been promoted, and the REST services of apps, on this machine only
	@$(BIN)/retiderm serve

.PHONY: compile
compile: setup ## Write the Kubeflow pipelines as YAML
	@$(BIN)/retiderm compile

# --- check -----------------------------------------------------------------------------------------------------

# make test ARGS='tests/unit/data -k split'
ARGS ?=
# A file's tests share servers and models, so they stay together; more than four processes want more memory than
# they save time.
WORKERS ?= -n logical --maxprocesses 4 --dist loadfile

.PHONY: test
test: setup ## All but the slow tests, on every core (WORKERS= for one process)
	@$(BIN)/python -m pytest $(WORKERS) $(ARGS)

.PHONY: test-slow
test-slow: setup ## The slow tests
	@$(BIN)/python -m pytest -m slow $(ARGS)

.PHONY: lint
lint: setup ## Format, style, types, and the arrows between the packages
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

.PHONY: format
format: setup ## Put the code into shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# make bench ARGS='--ingest ham10000:/data/ham10000'
.PHONY: bench
bench: setup ## Measure the speeds that the documentation quotes
	@$(BIN)/python -m benchmarks $(ARGS)

# make bench-quality ARGS='--retinamnist medmnist:/data/retinamnist.npz'
.PHONY: bench-quality
bench-quality: setup ## Train on real sets, five seeds or folds each, and hold the means against their targets
	@$(BIN)/python -m benchmarks.quality $(ARGS)

# make bench-runtimes ARGS='--images /data/ham10000/images'; with --bundle DIR --data DATASET a trained model's int8 too
.PHONY: bench-runtimes
bench-runtimes: setup ## Three backbones on every runtime and precision: latency, size, agreement, what tune chooses
	@$(BIN)/python -m benchmarks.runtimes $(ARGS)

# make bench-anomaly ARGS='--mvtec /data/mvtec/screw'
.PHONY: bench-anomaly
bench-anomaly: setup ## PatchCore side by side with anomalib, which gets an environment of its own
	@$(BIN)/python -m benchmarks.anomaly $(ARGS)

# make bench-loop ARGS='--ham10000 /data/ham10000 --retinamnist /data/retinamnist.npz'
.PHONY: bench-loop
bench-loop: setup ## Simulated labelling: how many labels each selection strategy saves over random
	@$(BIN)/python -m benchmarks.loop $(ARGS)

# --- maintain --------------------------------------------------------------------------------------------------

# Only these two lines make locks. Both name no host, and the serving image's is cut from the whole one.
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--override overrides.txt --custom-compile-command 'make lock' pyproject.toml

.PHONY: lock
lock: setup ## Resolve the dependencies anew: all three lock files
	@$(BIN)/$(COMPILE) --extra dev $(ARGS) -o requirements.lock
	@$(BIN)/$(COMPILE) --extra serving -c requirements.lock -o serving.lock
	@$(BIN)/$(COMPILE) --extra gateway -c requirements.lock -o gateway.lock

.PHONY: clean
clean: ## Remove caches and build leftovers; keep .venv and var
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -not -path './var/*' -prune -exec rm -rf {} +
