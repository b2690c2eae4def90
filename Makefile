# Every target stands on `setup`; the second time it takes a moment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SEED ?= 1
ROUNDS ?= 200

.PHONY: setup run test lint bench chaos sim lock clean

setup: $(READY)

$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Penstock needs Python 3.11 or newer; name one with: make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

run: setup
	$(BIN)/python examples/customers/demo.py

test: setup
	$(BIN)/python -m pytest -m "not long"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: setup
	$(BIN)/python -m benchmarks

chaos: setup
	$(BIN)/python -m pytest -m long tests/chaos

sim: setup
	$(BIN)/python -m penstock.sim --seed $(SEED) --rounds $(ROUNDS)

# Writes requirements/*.txt anew from pyproject.toml, without any address in them.
lock: setup
	$(BIN)/pip-compile --quiet --upgrade --strip-extras --no-header --no-emit-index-url --no-emit-find-links --no-emit-options \
		--extra dev --output-file requirements/dev.txt pyproject.toml

clean:
	rm -rf $(VENV) .venv-peers .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .bench dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
