# Every target works in a fresh clone: the environment is created in .venv on first use.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: setup setup-locked constraints demo demo-serve test test-browser test-faults lint bench clean

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev,hub,infomap,loggers,onnx,qdrant,search,serve,ssl,video]"
	touch $(STAMP)

setup: $(STAMP)  ## create .venv and install gloam with its test tools

setup-locked:  ## create .venv from constraints.txt: every package in one version, checked by its hash
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(STAMP)

constraints:  ## write constraints.txt anew: the newest versions that pyproject.toml allows, for every platform
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	printf 'hatchling>=1.24\neditables\n' | $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
		--all-extras --generate-hashes --no-emit-index-url --no-annotate --no-header pyproject.toml - \
		--output-file .constraints.tmp
	{ printf '# Every package that gloam and its extras need, with the hashes of its files.\n'; \
		printf '# Written by "make constraints", installed by "make setup-locked".\n'; \
		cat .constraints.tmp; } > constraints.txt
	rm .constraints.tmp

lint: setup  ## formatting, lint rules, floors of the package, static types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

test: lint  ## lint, then the whole default test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not gpu" -n 2 --dist loadscope  # two workers, a thread each

test-browser: setup  ## the search page and reports in a real Chromium, which it installs (Debian, Ubuntu; npm for axe-core)
	test -n "$$(command -v chromedriver)" || { apt-get update && apt-get install -y --no-install-recommends chromium chromium-driver; }
	$(BIN)/python -m pip install --quiet selenium
	test -f .axe/node_modules/axe-core/axe.min.js || npm install --silent --prefix .axe axe-core
	GLOAM_AXE=$(CURDIR)/.axe/node_modules/axe-core/axe.min.js $(BIN)/python -m pytest -m browser

demo-serve: setup  ## the demo, then its gallery on a page
	$(BIN)/gloam demo --serve

test-faults: setup  ## kills, full disks, signals, short memory, hostile files (docs/reliability.md): minutes
	$(BIN)/python -m pytest -n 2 --dist loadscope tests/faults tests/inference/test_checkpoint.py tests/pixels \
		tests/training/test_run_folder.py tests/training/test_data_files.py tests/training/test_interruption.py

demo: setup  ## draw people, train, evaluate, compare: below four minutes on two CPU cores
	$(BIN)/gloam demo

bench: setup  ## every benchmark, results as CSV in benchmarks/results
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
