# make demo     install into .venv and generate stories and JSON cards from the embedded model, offline
# make test     install with the dev and docs extras; lint, types, import layers, documentation, tests; in Chromium, too, where there is one
# make lint     the first three of these
# make soak     long statistical and volume tests
# make bench    benchmarks, peers included, a quarter of an hour; writes the tables and plots of docs/benchmarks.md anew
# make wheel    build sdist and wheel into dist/, install the wheel into an empty environment, run the demo there
# make docs     build the documentation into site/
# make clean    remove what the above made, .venv too
#
# PYTHON=python3.12 chooses the interpreter for .venv. pip follows its usual settings (pip.conf, PIP_* variables), so a
# machine without a GPU gets the small CPU build of torch where pip is told of an index or a folder that has it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
INPUTS := pyproject.toml constraints.txt

# Two installations into one .venv at a time would disturb each other, so `make -j` changes nothing; pytest has processes of its own.
.NOTPARALLEL:
.PHONY: help demo test browser lint soak bench wheel docs clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

# torch goes first and by its exact version: where several builds of it are at hand, pip then takes the local (CPU) one, and
# nothing later has a reason to exchange it.
$(VENV)/.core: $(INPUTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "ctrldecode needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
	  exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing torch"
	@$(PIP) "$$(grep '^torch==' constraints.txt)"
	@echo "installing ctrldecode"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	@echo "installing the dev extra"
	@$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	@echo "installing the bench extra"
	@$(PIP) --editable '.[bench]'
	@touch $@

$(VENV)/.docs: $(VENV)/.core
	@echo "installing the docs extra"
	@$(PIP) --editable '.[docs]'
	@touch $@

demo: $(VENV)/.core
	@HF_HUB_OFFLINE=1 $(BIN)/python -m ctrldecode demo

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pyright
	$(BIN)/lint-imports

# The page of `ctrldecode explain` is tested in Chromium where there is one. It is installed only where it was asked for (CI, or
# CTRLDECODE_BROWSER=1), by root on a Debian; whatever goes wrong, those tests are then skipped with a reason.
browser:
	@if [ -n "$${CI:-}$${CTRLDECODE_BROWSER:-}" ] && ! { command -v chromium && command -v chromedriver; } >/dev/null \
	    && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing chromium and chromium-driver"; \
	  { timeout 120 apt-get -qq update && DEBIAN_FRONTEND=noninteractive timeout 300 apt-get -qq install -y --no-install-recommends \
	    chromium chromium-driver; } >/dev/null 2>&1 \
	    || echo "they could not be installed; the tests of the page in a browser will be skipped"; \
	fi

test: lint docs browser
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8

soak: $(VENV)/.dev
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m soak --numprocesses auto --maxprocesses 8

bench: $(VENV)/.bench
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m bench --numprocesses 0 -s --write-docs tests/benchmarks

# Grammars, HMMs and models must come with the wheel, so the demo runs outside the checkout, with no path to it and an empty home.
wheel: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(PYTHON) -m venv dist/venv
	dist/venv/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	dist/venv/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	mkdir dist/home
	cd dist/home && env -u PYTHONPATH HOME="$$PWD" XDG_CACHE_HOME= HF_HUB_OFFLINE=1 ../venv/bin/ctrldecode demo

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build dist site .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find ctrldecode tests -name __pycache__ -type d -prune -exec rm -rf {} +
