# Everything a newcomer needs: `make demo` and `make test`.
# A machine needs python3 (3.11 or newer) with venv and pip; nothing else.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
OUT    ?= runs/demo
PACKAGES := bench cli client deploy mri reconsent server strategies tests unlearning
TESTS  ?= tests
# Tests run side by side, each file in one process; WORKERS=0 runs them one after the other. One more than there
# are cores: a test with real servers waits for half of its time.
WORKERS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2) + 1)))
# What tests write is flushed to disk thousands of times; in memory, where there is room, that costs nothing.
MEMORY := $(shell [ -w /dev/shm ] && [ $$(df -Pk /dev/shm | awk 'END {print $$4}') -gt 4000000 ] && echo /dev/shm)

# Of the libraries, what nothing here imports and is large; compiled when it is imported after all.
UNUSED := (tests|_tests|testing|SelfTest|rllib|numba|networkx|pip|mypy|mypyc|devtools|torchvision|torchmetrics|coverage)
UNUSED_PARTS := (torch/_inductor|torch/_vendor|sympy/(physics|stats|vector)|ray/(data|serve|tune|train|llm|dashboard))

# One thread a process: simulated clients run side by side, and a fixed order of sums gives the same bits.
export OMP_NUM_THREADS := 1
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export RAY_USAGE_STATS_ENABLED := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format bench docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv and install Reconsent with its development tools (once)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, and '$(PYTHON)' is not. Try: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || \
	  { echo "Python cannot make a virtual environment. On Debian: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[dev]'
	@# pip compiles on one core only, and everything. Some packages hold files for other versions of Python, which is no
	@# error.
	@$(BIN)/python -m compileall -q -q -j 0 -x '/$(UNUSED)/|/$(UNUSED_PARTS)/' $(VENV)/lib || true
	@$(BIN)/python -m compileall -q -q -j 0 $(PACKAGES) || true
	@touch $@

demo: setup ## simulate the default consortium: train, withdraw the knee site, unlearn, compare
	$(BIN)/reconsent simulate demo --out $(OUT)

test: setup ## run the tests; TESTS=tests/mri for some of them
	$(if $(MEMORY),TMPDIR=$(MEMORY)) $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(TESTS)

lint: setup ## ruff, mypy --strict, import arrows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports

format: setup ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The methods of unlearning side by side are another thing, of an hour or two: `reconsent bench`, whose page is docs/benchmark.md.
bench: setup ## what a round costs beside plain Flower, and how the server's memory grows
	$(BIN)/python -m bench.round_overhead --out bench/results/round_overhead.json
	$(BIN)/python -m bench.server_memory --out bench/results/server_memory.json

docs: setup ## write the generated pages of docs/ again
	$(BIN)/python -m reconsent.reference > docs/.configuration.md && mv docs/.configuration.md docs/configuration.md
	$(BIN)/python -m cli.results_reference > docs/.results.md && mv docs/.results.md docs/results.md
	$(BIN)/python -m cli.metrics_reference > docs/.metrics.md && mv docs/.metrics.md docs/metrics.md
	$(BIN)/python -m cli.methods_reference > docs/.methods.md && mv docs/.methods.md docs/methods.md
	$(BIN)/python -m deploy.grafana.writer

clean: ## remove what was made here, except runs/
	rm -rf $(VENV) dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
