# ra-plugins: `make` says what there is. Python 3.11 or later is all it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# What is installed: the project's own text says what that is, so a change to it installs again, and nothing else does.
PROJECT := settings.ini setup.py pyproject.toml
MADE := $(VENV)/.made-by-$(subst /,-,$(PYTHON))
RUN := $(VENV)/.run
DEV := $(VENV)/.dev
DOCS := $(VENV)/.docs
LAB := $(VENV)/.lab

# pip talks on a terminal, and is silent where its words would only fill a log.
PIP := $(BIN)/python -m pip --disable-pip-version-check $(if $(MAKE_TERMOUT),,--quiet)

.PHONY: help demo test notebooks docs docs-serve lab bench fuzz soak check lint hooks clean
.NOTPARALLEL:

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(RUN) ## a mail server with plugins, and four clients that call it
	@$(BIN)/ra-plugins demo

test: $(DEV) ## every test, the notebooks among them, then lint
	@$(MAKE) --no-print-directory $(DOCS) || echo "what sets the website can't be had, and the website isn't tested" >&2
	@$(BIN)/pytest -n auto --maxprocesses 4
	@$(MAKE) --no-print-directory lint

notebooks: $(DEV) ## after a change to a notebook: export, run, clean, README.md
	$(BIN)/nbdev_export
	$(BIN)/python tests/notebooks.py
	$(BIN)/nbdev_clean
	$(BIN)/python docs/readme.py

docs: $(DOCS) ## the website, into _docs/: open _docs/index.html
	@$(BIN)/python docs/build.py

docs-serve: $(DOCS) ## the website on http://127.0.0.1:8000/, built again when a notebook changes
	@mkdir -p _proc
	@$(BIN)/sphinx-autobuild --quiet --watch nbs --watch docs --re-ignore '/_proc/' -c docs -d _proc/.doctrees _proc _docs

lab: $(LAB) ## the notebooks in JupyterLab
	@$(BIN)/jupyter lab nbs

bench: $(DEV) ## measure against peers, as ratios in one run
	@$(BIN)/python bench/run.py

fuzz: $(DEV) ## fuzz the SPF record parser for a minute, with atheris; SECONDS=… for longer
	@$(PIP) install 'atheris>=2.3'
	@$(BIN)/python fuzz/record.py -max_total_time=$(or $(SECONDS),60)

soak: $(DEV) ## ask rater for four minutes (MINUTES=…) and the service for an hour (SECONDS=…), and see that they don't grow
	@$(BIN)/python tests/soak.py
	@$(BIN)/python tests/soak_service.py

check: $(DEV) ## do package, README.md and notebooks agree?
	@$(BIN)/pytest tests/test_project.py

lint: $(DEV) ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/mypy

hooks: $(DEV) ## nbdev's git hooks: merge notebooks by cell, trust them after a merge
	@test -d .git || { echo "nbdev installs its hooks in a clone, and this isn't one (a worktree?)" >&2; exit 1; }
	@$(BIN)/nbdev_install_hooks
	@git config merge.nbdev-merge.driver '$(BIN)/nbdev_merge %O %A %B %P'
	@printf '#!/bin/sh\n$(BIN)/nbdev_trust\n' > .git/hooks/post-merge

clean: ## remove what was made: the environment, the website, caches
	rm -rf $(VENV) *.egg-info build dist _docs _proc .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(MADE):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "ra-plugins needs Python 3.11 or later: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	|| { echo "$(PYTHON) lacks the module venv: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }
	@echo "Setting up $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(RUN): $(MADE) $(PROJECT)
	@$(PIP) install --editable .
	@touch $@

$(DEV): $(MADE) $(PROJECT) tests/pyspf.txt
	@$(PIP) install --editable '.[dev]'
	@$(PIP) download --no-deps --no-binary :all: --require-hashes --requirement tests/pyspf.txt --dest .cache \
	|| echo "the suites in pyspf's archive can't be had, and are skipped" >&2
	@touch $@ $(RUN)

$(DOCS): $(DEV)
	@$(PIP) install --editable '.[dev,docs]'
	@touch $@

$(LAB): $(DEV)
	@$(PIP) install --editable '.[dev,lab]'
	@$(BIN)/python -m ipykernel install --prefix $(VENV) --name python3
	@touch $@
