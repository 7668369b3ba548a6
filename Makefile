# Baza's commands; `make help` lists them. GNU make 3.81 (macOS) is enough.
# ARGS goes through to the command: make run ARGS='--nodes 3', make test ARGS='-k outbox -x'

IS_311 := -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'
PYTHON ?= $(shell for p in python3.11 python3 python; do $$p $(IS_311) 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
INSTALLED := .venv/installed
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo run stop test fmt lint types imports contracts check bench chaos chaos-long race lock clean reset

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Make .venv and install what is locked, Kafka's jars included; nothing if unchanged

demo: $(INSTALLED) ## Start everything, run the main job on real data, show what came out
	@$(BIN)/python -m deploy.local demo $(ARGS)

run: $(INSTALLED) ## Start the suite and keep it until Ctrl-C; its data stay in .data/run
	@$(BIN)/python -m deploy.local run $(ARGS)

stop: $(INSTALLED) ## Stop the suite that `make run` started, and what a killed one left behind
	@$(BIN)/python -m deploy.local stop $(ARGS)

test: $(INSTALLED) ## Run the tests, on a PostgreSQL and a Kafka of their own
	@$(BIN)/pytest $(ARGS)

fmt: $(INSTALLED) ## Format the code and sort the imports
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

lint: $(INSTALLED) ## Check style and format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(INSTALLED) ## Check types, mypy strict
	@$(BIN)/mypy

imports: $(INSTALLED) ## Check who may import whom
	@$(BIN)/lint-imports

contracts: $(INSTALLED) ## Write the golden schemas, AsyncAPI, OpenAPI and the event table anew
	@$(BIN)/python -m tests.contracts.write $(ARGS)

check: lint types imports test ## Everything CI runs

bench: $(INSTALLED) ## Measure, each figure beside its limit
	@$(BIN)/python -m tests.benchmarks $(ARGS)

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" pyproject.toml

chaos: $(INSTALLED) ## Break everything for some minutes, and prove that nothing is lost or done twice
	@$(BIN)/python -m tests.reliability $(ARGS)

chaos-long: $(INSTALLED) ## The same for an hour: a million events, a thousand faults
	@$(BIN)/python -m tests.reliability --size long $(ARGS)

race: $(INSTALLED) ## Eight routing workers, a hundred thousand leads, kills and late claims; ARGS='--leads 5000'
	@$(BIN)/python -m tests.reliability.race $(ARGS)

lock: $(INSTALLED) ## Lock what pyproject.toml names, with hashes; newest versions: ARGS=--upgrade
	$(COMPILE) --group local --group dev -o requirements.lock $(ARGS)
	$(COMPILE) --no-annotate -c requirements.lock -o deploy/requirements.lock

clean: ## Remove caches
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

reset: stop ## Stop the suite and remove all its data
	rm -rf .data

$(INSTALLED): requirements.lock deploy/local/kafka-jars.txt
	@test -n "$(PYTHON)" && $(PYTHON) $(IS_311) || \
	  { echo "Python 3.11 is needed: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing what requirements.lock names ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@$(BIN)/python -m deploy.local fetch
	@touch $@
