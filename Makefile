# make demo: the method on rendered scenes. make test: everything a change must pass, set up from nothing but Python 3.11, make and a package index.
PYTHON ?= python3
BIN := .venv/bin
# One thread per process: more of both would wait for each other. In the order of tests/conftest.py, the longest files first.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -q --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: demo test fast faults lint docs benchmark clean

demo: .venv/ready
	$(BIN)/depthtokens demo

test: lint
	$(PYTEST)

fast: .venv/ready
	$(PYTEST) -m "not slow and not docs"

# Kills, full disks, damaged files by the thousand; it goes on where it was stopped (faults.jsonl). docs/reliability.md has the table.
faults: .venv/ready
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m faults

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, with warnings as errors and its notebooks run; then every command and Python block of its pages.
docs: .venv/docs
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html
	$(PYTEST) -m docs tests/test_site.py tests/test_pages.py

benchmark: .venv/ready
	$(BIN)/python benchmarks/run.py $(if $(NYU),--nyu $(NYU))

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

.venv/docs: .venv/ready
	$(BIN)/pip install --quiet --editable ".[dev,docs]"
	touch $@

clean:
	rm -rf .venv dist docs/_build docs/generated .pytest_cache .mypy_cache .ruff_cache
