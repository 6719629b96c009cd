# make demo: the whole street on the embedded data.   make test: the test suite.
# Each sets up .venv on its first call. Another interpreter: make test PYTHON=python3.12

# Asked, not looked up: a name on the path may be a shim without the version behind it, or lack ensurepip.
FITS := -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do $$p $(FITS) && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: demo test lint bench mutants docs pages clean install
.DEFAULT_GOAL := demo

demo: $(STAMP)
	$(BIN)/tagmask run recipes/demo.yaml

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script; done

# Changes that once passed all tests, then a sample of mutants of every module (docs/testing.md); about an hour.
mutants: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[mutation]'
	$(BIN)/python benchmarks/mutation/run.py --named
	$(BIN)/python benchmarks/mutation/run.py

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict --quiet

# What scripts write into README, mkdocs.yml and pages; tests fail where it is not today's.
pages: $(STAMP)
	@set -e; for script in docs/tables/*.py docs/pictures/house.py; do $(BIN)/python $$script; done

install: $(STAMP)

# The build tool is pinned like everything else, hence no isolated build.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && $(PYTHON) $(FITS) || { echo "tagmask needs Python 3.11, 3.12 or 3.13 with venv" \
		"and ensurepip; name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev,docs]'
	@touch $@

clean:
	rm -rf $(VENV) build dist site src/*.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
