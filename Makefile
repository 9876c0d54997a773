# `make demo` and `make test` set everything up on a fresh machine; nothing is installed twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TEST_THREADS ?= 1
# More than the cores: tests with real processes mostly wait. Each takes up to 4 GiB of memory.
TEST_WORKERS ?= 4
PYTEST := OMP_NUM_THREADS=$(TEST_THREADS) $(BIN)/pytest -q
WHOLE := $(PYTEST) -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder --durations=40

.PHONY: demo test test-all coverage check lint format bench clean

demo: $(READY)
	$(BIN)/sase-ray compare --config adapt_digits
	$(BIN)/sase-ray compare --on table --seeds 100

# Everything that a change is held to; tests marked `full` guard what changes rarely break.
test: $(READY)
	$(WHOLE) -m "not full"

test-all: $(READY)
	$(WHOLE)

# All of them, and which lines they reach; a third slower.
coverage: $(READY)
	$(WHOLE) --cov --cov-report=term

# The developer's quick loop.
check: $(READY) lint
	$(PYTEST) -n 2 -m "not ray and not slow and not full" -x

# Ratios that the project promises, and whether they hold here; exits 0 either way.
bench: $(READY)
	$(BIN)/python benchmarks/run.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info
