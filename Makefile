# `make demo` and `make test` need python3 (3.11, 3.12 or 3.13) with pip and venv, and make. No more.

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint docs environment clean

# The first Python that can make the environment; if none can, python3, to be told why. Looked for
# only when it is needed. A command on the PATH may exist and still not run, hence the trial.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	"$$python" tools/check_python.py >/dev/null 2>&1 && break; python=python3; \
	done; echo $$python)
verdict = $(shell "$(PYTHON)" tools/check_python.py 2>/dev/null)
no_python = "$(PYTHON)" does not run: install Python 3.11, 3.12 or 3.13 (Debian, Ubuntu: apt install python3 python3-venv)

# Tests run in so many processes, a file in one of them; each may need 5 GB of memory. Those of the
# benchmarks compare rates, and have the machine for themselves.
WORKERS ?= 2

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: environment ## the whole way on drawn faces, in demo/: data, training, evaluation, serving
	@.venv/bin/python tools/demo.py

test: lint ## lint and the quick tests
	@.venv/bin/python -m pytest -q --numprocesses=$(WORKERS) --dist=loadfile

test-slow: environment ## the tests that take longer
	@.venv/bin/python -m pytest -q -m slow --numprocesses=$(WORKERS) --dist=loadfile --ignore=tests/benchmarks
	@.venv/bin/python -m pytest -q -m slow tests/benchmarks

lint: environment ## ruff, the types (mypy) and the walls between packages (import-linter)
	@.venv/bin/python -m ruff check
	@.venv/bin/python -m ruff format --check
	@.venv/bin/python -m mypy
	@.venv/bin/lint-imports --no-logo --no-cache

docs: environment ## the documentation site, in site/
	@NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict --quiet

environment: .venv/installed ## the environment in .venv (made or renewed only when needed)

clean: ## remove the environment, the demo and what tools leave behind
	rm -rf .venv demo site build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An installation that was cut short leaves .venv/installing behind and starts afresh.
ifneq ($(wildcard .venv/installing),)
.PHONY: .venv/bin/python
endif

.venv/bin/python:
	$(if $(filter ok,$(verdict)),,$(error $(or $(verdict),$(no_python))))
	@rm -rf .venv && mkdir .venv && touch .venv/installing
	@"$(PYTHON)" -m venv .venv

.venv/installed: .venv/bin/python setup.py pyproject.toml constraints.txt
	@touch .venv/installing
	@echo "Installing the environment into .venv: a few minutes the first time, 3 GB on disk."
	@.venv/bin/python -m pip install -qq --disable-pip-version-check -e '.[test,docs,pretrained]' -c constraints.txt
	@mv .venv/installing .venv/installed
	@echo "The environment is ready."
