# Each target makes the virtual environment it needs: a fresh machine needs Python and make, nothing else.
PYTHON ?= python3
VENV ?= .venv
PLUGINS_VENV ?= .venv-plugins
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_ARGS ?= -q
# Processes that run tests side by side; the tests of one file stay together.
WORKERS ?= 2

FUZZ_SECONDS ?= 300
# Which rows of the fault matrix: an expression of pytest's -k; all when it is empty. "signals-" is a group.
FAULTS ?=
FAULTS_ARGS ?= -q

.PHONY: demo test plugins lint fuzz faults clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[figures,test,lint]"
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python examples/demo.py demo_output

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

# Every plugin in an environment of its own, with the programs that it belongs to where they can be installed.
plugins:
	PYTHON=$(PYTHON) plugins/test_all.sh $(PLUGINS_VENV) $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

fuzz: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m fuzz --seconds $(FUZZ_SECONDS)

faults: $(STAMP)
	$(BIN)/python -m pytest tests/faults/matrix.py -n $(WORKERS) -k "$(FAULTS)" $(FAULTS_ARGS)

clean:
	rm -rf $(VENV) $(PLUGINS_VENV) demo_output build *.egg-info .pytest_cache .mypy_cache .ruff_cache
