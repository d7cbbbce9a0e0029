PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test quick slowest lint docs examples clean

demo: $(VENV)/.installed
	$(BIN)/offramp demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m "not slowest"

# What a contributor runs after every change: under a minute on two cores.
quick: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m "not slow and not slowest"

# MINUTES=25 skips what has not begun by then, by turns from commit to commit, and says so.
slowest: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m slowest \
	  $(if $(MINUTES),--minutes $(MINUTES) --turn "$$(git rev-parse HEAD)")

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Pages that are made from the code.
docs: $(VENV)/.installed-dev
	$(BIN)/typer offramp.cli._app utils docs --name offramp --title "The command line" --output docs/cli.md
	$(BIN)/python docs/heads.py

# The examples for Node and the browser; without them their tests are skipped.
examples: $(VENV)/.installed-dev
	npm install --prefix examples/node --no-audit --no-fund
	npm install --prefix examples/web --no-audit --no-fund
	$(BIN)/python -m pytest tests/examples

# A stamp is newer than what it was made from, so a second call installs nothing.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Offramp needs Python 3.11 or newer: make PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
