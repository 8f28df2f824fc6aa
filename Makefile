# Two commands: `make run` sets everything up and runs the main job; `make test` sets everything up and tests it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := HF_HUB_OFFLINE=1 $(BIN)/python -m pytest
# Each process takes about a gigabyte. The tests with Ray run one after the other, and wait half of the time for processes
# to start: `test` runs the others in what they leave.
UNIT_TESTS := OMP_NUM_THREADS=1 $(PYTEST) -m 'not ray' --numprocesses=logical --maxprocesses=4 --dist=worksteal
UNIT_LOG := $(VENV)/unit-tests.log
RAY_TESTS := $(PYTEST) -m ray --durations=15

.DEFAULT_GOAL := help
.PHONY: help install run demo test test-unit check format bench bench-estimate bench-policy bench-autoscaling torture docs clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk 'BEGIN {FS = ":.*?## "} {printf "  %-12s %s\n", $$1, $$2}'

install: $(STAMP) ## Make the virtual environment and install everything into it

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12"; exit 1; }
	@echo "installing into $(VENV) (some minutes the first time) ..."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt torch
	$(PIP) install -q -c constraints.txt -e '.[examples,dev]'
	touch $@

run: demo ## The main job: start a local cluster, run the example pipeline on it, show what was decided

demo: $(STAMP) ## The same as run
	HF_HUB_OFFLINE=1 $(BIN)/raywise demo

# PostgreSQL's own server, for the tests of the store: found where Debian puts it, or installed.
POSTGRESQL := ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || \
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql >/dev/null; } || \
	{ echo "the tests need PostgreSQL: install it (Debian: apt-get install postgresql)"; exit 1; }

test: $(STAMP) ## All tests: unit, contract and integration on a real local Ray cluster
	@$(POSTGRESQL)
	@echo "the tests without Ray run beside those with it; what they say follows at the end ($(UNIT_LOG))"
	@failed=0; nice -n 19 env $(UNIT_TESTS) >$(UNIT_LOG) 2>&1 & unit=$$!; \
	trap 'kill $$unit; exit 130' INT TERM; \
	$(RAY_TESTS) || failed=1; wait $$unit || failed=1; cat $(UNIT_LOG); exit $$failed

test-unit: $(STAMP) ## Only what needs no Ray
	@$(POSTGRESQL)
	$(UNIT_TESTS)

check: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## Benchmarks; each says what it is compared with
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.decision_time
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.estimate_time

bench-estimate: $(STAMP) ## Measure the accuracy of the estimates and write docs/accuracy.md (about 12 minutes)
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.estimates.accuracy

bench-policy: $(STAMP) ## Policies on Gavel's traces beside Gavel's own numbers; writes docs/benchmarks.md (about 20 minutes)
	$(BIN)/python -m benchmarks.policies.gavel

# The traces are those of others and no part of the project: benchmarks/autoscaling/work.py says where they are from.
DATA ?= ../shared/data
bench-autoscaling: $(STAMP) ## Policies that rent nodes, on Philly's and Alibaba's jobs at AWS prices (about 20 minutes; DATA=folder)
	$(BIN)/python -m benchmarks.autoscaling --data $(DATA)

# The first part is the fake cluster at every point there is, the second a real one: two hours on two cores.
TORTURE ?= --kills 200 --seed 1
torture: $(STAMP) ## Kill everything again and again, and look whether anything was lost (TORTURE="--kills 20 --seed 3")
	OMP_NUM_THREADS=1 RAYWISE_CRASH_POINTS=all $(PYTEST) tests/unit/scheduler/test_crashes.py
	folder=$$(mktemp -d) && HF_HUB_OFFLINE=1 $(BIN)/python -m tests.torture $(TORTURE) --home $$folder/home --report $$folder/report.json

docs: $(STAMP) ## The page of the API, and the picture in the README, from a real run of the demo
	$(BIN)/python docs/make_api.py
	HF_HUB_OFFLINE=1 $(BIN)/python docs/make_picture.py

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
