# Every target works in a fresh clone: the environment is created in .venv on first use.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: setup demo test lint bench clean

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev,infomap,ssl,video,loggers]"
	touch $(STAMP)

setup: $(STAMP)  ## create .venv and install gloam with its test tools

lint: setup  ## formatting, lint rules and static types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint  ## lint, then the whole default test suite
	$(BIN)/python -m pytest -m "not slow and not gpu" -n 2 --dist loadscope

demo: setup  ## draw people, train, evaluate, compare: below four minutes on two CPU cores
	$(BIN)/gloam demo

bench: setup  ## every benchmark, results as CSV in benchmarks/results
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
