# Needs git, make, and a Python 3.11 or newer with venv; everything else is fetched into .venv.

PYTHON ?= python3
KILLS ?= 20000
SEEDS ?= 20000
BENCH ?= all
ARGS ?=
JOBS ?= $(if $(ARGS),0,2)
# In CI the dice are fixed (docs/decisions/0064): a refusal says something of the change.
SEED ?= $(if $(CI),1)

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test check format docs bench kill simulate verify clean

help: ## Say what there is to make
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1 \2/p' Makefile | awk '{ printf "  %s %-8s", $$1, $$2; $$1 = $$2 = ""; print }'

demo: .venv/.run ## See executions survive kill -9, on real data, in seconds
	$(BIN)/outlast demo $(ARGS)

test: .venv/.dev ## Run all tests, two thousand kills and simulated worlds included
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(if $(SEED),--randomly-seed=$(SEED)) $(ARGS)

check: .venv/.dev ## Lint, format, types, generated pages, the rules of the repository; seconds
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m outlast.lifecycle.render --check
	$(BIN)/python -m outlast.dialects.render --check
	$(BIN)/python -m outlast.access.render --check
	$(BIN)/python -m outlast.store.render --check
	$(BIN)/python -m outlast.cli.render --check
	$(BIN)/python -m outlast.server.openapi --check
	$(BIN)/python -m pytest --quiet tests/tidy

format: .venv/.dev ## Format the code, and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/.dev ## Write the generated pages again
	$(BIN)/python -m outlast.lifecycle.render
	$(BIN)/python -m outlast.dialects.render
	$(BIN)/python -m outlast.access.render
	$(BIN)/python -m outlast.store.render
	$(BIN)/python -m outlast.cli.render
	$(BIN)/python -m outlast.server.openapi

bench: .venv/.dev ## Measure, on the disk under .bench (BENCH=W1 for one workload, ARGS=--quick)
	$(BIN)/python -m benchmarks $(BENCH) $(ARGS)

kill: .venv/.dev ## Kill the engine 20,000 times (KILLS=...) and check what is left
	$(BIN)/python -m campaigns.kill --kills $(KILLS) $(ARGS)

simulate: .venv/.dev ## Run 20,000 simulated worlds (SEEDS=...), and see planted bugs caught
	$(BIN)/python -m campaigns.simulation --seeds $(SEEDS) $(ARGS)
	$(BIN)/python -m campaigns.simulation --matrix

verify: check test kill simulate ## What a release must pass: all of the above, and the package builds
	$(BIN)/python -m build

clean: ## Remove everything that was made here, .venv too
	rm -rf .venv .bench .crash .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps say which of the two sets of packages .venv has; the demo needs the smaller one only.
.venv/.run: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is older than 3.11; name another: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) hatchling editables
	$(PIP) --no-build-isolation --editable .
	@touch $@

.venv/.dev: .venv/.run
	$(PIP) --no-build-isolation --editable '.[dev]'
	$(BIN)/python -m servers.pgbouncer
	$(BIN)/python -m servers.oldest
	@touch $@
