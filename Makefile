# `make demo` and `make test` set everything up on a fresh machine; nothing is installed twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TEST_THREADS ?= 1
PYTEST := OMP_NUM_THREADS=$(TEST_THREADS) $(BIN)/pytest -q -n 2
WHOLE := --dist loadfile --no-loadscope-reorder

.PHONY: demo test coverage check lint format bench clean

demo: $(READY)
	$(BIN)/sase-ray compare --dataset digits --strategies random,tpe-asha,darts
	$(BIN)/sase-ray compare --on table --seeds 100

test: $(READY)
	$(PYTEST) $(WHOLE)

# The same, and which lines they reach; a third slower.
coverage: $(READY)
	$(PYTEST) $(WHOLE) --cov --cov-report=term

# The developer's quick loop.
check: $(READY) lint
	$(PYTEST) -m "not ray and not slow" -x

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
