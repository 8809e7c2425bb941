# Two commands from a bare machine: `make demo` and `make test`. Both need python3 (3.11 or newer,
# with venv) and make, and share the virtual environment in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A process for each core, eight at most since each loads torch; PYTEST_OPTIONS='-n 0 --pdb' debugs.
# Their OpenMP threads sleep while they wait: where they spin, the others' work stands still.
PYTEST := OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

.PHONY: help setup browser mario demo test check format clean

help:
	@echo "make demo    train CartPole to solved, evaluate it, record a video"
	@echo "make test    run every test (PYTEST_OPTIONS='-x -k replay' goes to pytest)"
	@echo "make check   lint, formatting, types, fast tests"
	@echo "make format  format the code"

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "rlagents needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	@touch $@

browser:
	@scripts/install_browser.sh

mario: setup
	@scripts/install_mario.sh $(BIN)/python

demo: setup
	@$(BIN)/python scripts/demo.py

test: setup browser mario
	$(PYTEST) $(PYTEST_OPTIONS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python scripts/check_types.py
	$(PYTEST) -m 'not slow'

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
