# Needs python 3.11 to 3.13, git and make; everything else goes into .venv/. `make help` lists the targets.
MODEL ?= recorded
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest
REPORTS := build/reports

FOUND := $(shell for p in $(PYTHON) python3.11 python3.12 python3.13 python3; do \
	if $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1; then echo $$p; break; fi; done)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-real lint types imports rules docs lock chaos bench e2e-slow longest clean
# Steps of `make test` run in the order written, even under -j.
.NOTPARALLEL:

help: ## this list
	@echo "make demo       run the main job on the example repository (MODEL=<profile> asks a live model)"
	@echo "make test       every check but the slow ones: lint, types, imports, rules, docs, tests, coverage"
	@echo "make test-fast  tests that start no service"
	@echo "make test-real  the suites of the stores against a real Redis and Neo4j (FLEET_REDIS_URL, FLEET_NEO4J_URI)"
	@echo "make lint | types | imports | rules | docs | longest      one check each"
	@echo "make e2e-slow | chaos | bench                            long runs"
	@echo "make setup      the environment in .venv/ alone"
	@echo "make lock       resolve requirements.lock again"
	@echo "make clean      remove what was built here; stories and their logs stay"

setup: $(READY)

$(READY): requirements.lock pyproject.toml scripts/setup_env.py
	@if [ -z "$(FOUND)" ]; then \
		echo "No Python from 3.11 to 3.13 was found: install one, or name it with 'make PYTHON=/path/to/python ...'." >&2; exit 1; fi
	@if ! command -v git >/dev/null 2>&1; then echo "git was not found: install it." >&2; exit 1; fi
	@$(FOUND) scripts/setup_env.py $(VENV)

demo: $(READY)
	@MODEL="$(MODEL)" $(BIN)/python scripts/demo.py

test: lint imports types rules docs
	@mkdir -p $(REPORTS)
	$(BIN)/python scripts/run_tests.py $(ARGS)
	$(BIN)/coverage json -q -o $(REPORTS)/coverage.json
	$(BIN)/python scripts/coverage_gate.py $(REPORTS)/coverage.json

test-fast: $(READY)
	$(PYTEST) -m "not slow" tests/unit tests/house $(ARGS)

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

imports: $(READY)
	$(BIN)/lint-imports --no-logo

types: $(READY)
	$(BIN)/pyright

rules: $(READY)
	@$(BIN)/python scripts/rules.py report

docs: $(READY)
	$(BIN)/python scripts/docs.py --check
	$(BIN)/mkdocs build --strict --quiet

longest: $(READY)
	@$(BIN)/python scripts/longest.py

lock: $(READY)
	@$(BIN)/python scripts/lock.py

e2e-slow: $(READY)
	$(PYTEST) -m slow tests --ignore=tests/chaos $(ARGS)

test-real: $(READY)
	$(BIN)/python scripts/test_real.py $(ARGS)

chaos: $(READY)
	$(PYTEST) -m slow tests/chaos $(ARGS)

bench: $(READY)
	@$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist site .pytest_cache .ruff_cache .hypothesis .coverage .coverage.*
