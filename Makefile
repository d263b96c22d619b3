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

# A path, and not a hook for imports, which type checkers can't follow from outside of the checkout.
EDITABLE := --config-settings editable_mode=compat --editable

# pip talks on a terminal, and is silent where its words would only fill a log.
PIP := $(BIN)/python -m pip --disable-pip-version-check $(if $(MAKE_TERMOUT),,--quiet)

# What `make quick` runs: it starts no server.
QUICK := $(patsubst %,tests/test_%.py,access asking control_files declarations exempt mistakes_at_the_door ownsender project \
rater_config rooms skips small_print spf_bounds zonefile)
# The notebooks in the order in which `make notebooks` and `make quick` take them: those named, or all; those changed.
CHANGED = $(shell git status --porcelain --untracked-files=all -- nbs | sed -n 's/^[ MARC?]* \(.* -> \)\{0,1\}\(nbs.*\.ipynb\)$$/\2/p')

# What `make compiled` runs: libspf2's suite isn't ours, and is there where the variable says so.
COMPILED := $(filter-out $(if $(LIBSPF2_SUITE),,%_suite.py),$(wildcard tests/test_spf*.py)) \
$(patsubst %,tests/test_%.py,mistakes_at_the_door small_print $(patsubst %,rater_%,client config daemon hostile model policy stores))

.PHONY: help demo test quick compiled coverage newest notebooks plugin docs docs-serve lab bench fuzz soak check lint hooks clean
.NOTPARALLEL:

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(RUN) ## a mail server with plugins, and four clients that call it
	@$(BIN)/ra-plugins demo

test: $(DEV) ## every test, the notebooks among them, then lint; ARGS='-k spf' for some of them, as pytest has it
	@$(MAKE) --no-print-directory $(DOCS) || echo "what sets the website can't be had, and the website isn't tested" >&2
	@$(BIN)/pytest -n auto --maxprocesses 4 $(ARGS)
	@$(MAKE) --no-print-directory lint

quick: $(DEV) ## before a commit: the notebooks that have changed, the tests that start no server, lint
	@for each in $(CHANGED); do test ! -e $$each || $(BIN)/python tests/notebooks.py --check $$each || exit 1; done
	@$(BIN)/pytest $(QUICK) $(ARGS)
	@$(MAKE) --no-print-directory lint

compiled: $(DEV) ## compile a copy of the package, in .compiled, and run the tests of SPF and rater on it
	@$(BIN)/python tools/compiled_copy.py .compiled
	@cd .compiled && PYTHONPATH=$$PWD ../$(BIN)/python -m pytest -p no:cacheprovider $(COMPILED) $(ARGS)

coverage: $(DEV) ## every test, and which lines and branches of the package they reach, in other processes, too
	@$(MAKE) --no-print-directory $(DOCS) || echo "what sets the website can't be had, and the website isn't tested" >&2
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -n auto --maxprocesses 4 $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

newest: $(DEV) ## every test on the newest release of all that it runs on, whatever settings.ini allows
	@$(PIP) install --upgrade $$($(BIN)/python tools/requirements.py)
	@$(BIN)/pytest -n auto --maxprocesses 4 $(ARGS)

notebooks: $(DEV) ## after a change to a notebook: format, export, run, clean, README.md; NB='nbs/spp/00_session.ipynb' for some
	@$(BIN)/ruff format --quiet --isolated --line-length 88 --target-version py311 nbs
	@$(BIN)/nbdev_export
	@$(BIN)/python tests/notebooks.py $(NB)
	@$(BIN)/nbdev_clean
	@$(BIN)/python docs/readme.py

plugin: $(DEV) ## begin a plugin: NAME=… writes the skeleton of its notebook, which works as it is
	@$(BIN)/python tools/plugin.py '$(NAME)'
	@$(MAKE) --no-print-directory notebooks NB='nbs/plugins/$(NAME).ipynb nbs/index.ipynb'

docs: $(DOCS) ## the website, into _docs/: open _docs/index.html
	@$(BIN)/python docs/build.py

docs-serve: $(DOCS) ## the website on http://127.0.0.1:8000/, built again when a notebook changes
	@mkdir -p _proc
	@$(BIN)/sphinx-autobuild --quiet --watch nbs --watch docs --re-ignore '/_proc/' -c docs -d _proc/.doctrees _proc _docs

lab: $(LAB) ## the notebooks in JupyterLab; ARGS='--no-browser --port 9999' for options of its own
	@cd nbs && ../$(BIN)/jupyter lab --ContentsManager.pre_save_hook=nbdev.clean.clean_jupyter \
		$(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS)

bench: $(DEV) ## measure against peers, as ratios in one run; ARGS='rater --rounds 9' for some of it
	@$(PIP) install 'checkdmarc>=6,<7' || echo "checkdmarc can't be had, and isn't measured against" >&2
	@$(BIN)/python bench/run.py $(ARGS)

fuzz: $(DEV) ## fuzz the SPF record parser for a minute, with atheris; SECONDS=… for longer
	@$(PIP) install 'atheris>=2.3'
	@$(BIN)/python fuzz/record.py -max_total_time=$(or $(SECONDS),60)

soak: $(DEV) ## ask rater for four minutes (MINUTES=…) and the service for an hour (SECONDS=…), and see that they don't grow
	@$(BIN)/python tests/soak.py
	@$(BIN)/python tests/soak_service.py

check: $(DEV) ## do package, README.md and notebooks agree, and is no merge left half done?
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
	rm -rf $(VENV) .compiled .compiled.lock .coverage* *.egg-info build dist _docs _proc .pytest_cache .mypy_cache .ruff_cache
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
	@$(PIP) install $(EDITABLE) '.[all]'
	@touch $@

$(DEV): $(MADE) $(PROJECT) tests/pyspf.txt
	@$(PIP) install $(EDITABLE) '.[dev]'
	@$(PIP) install $(EDITABLE) '.[milter]' \
	|| echo "pymilter can't be made here (libmilter-dev?), so the tests of the milter are skipped" >&2
	@$(PIP) download --no-deps --no-binary :all: --require-hashes --requirement tests/pyspf.txt --dest .cache \
	|| echo "the suites in pyspf's archive can't be had, and are skipped" >&2
	@touch $@ $(RUN)

$(DOCS): $(DEV)
	@$(PIP) install $(EDITABLE) '.[dev,docs]'
	@touch $@

$(LAB): $(DEV)
	@$(PIP) install $(EDITABLE) '.[dev,lab]'
	@$(BIN)/python -m ipykernel install --prefix $(VENV) --name python3
	@touch $@
