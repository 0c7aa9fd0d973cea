# `make demo` and `make test` need only Python >= 3.10, make and a package index; they make their own .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help
.PHONY: help demo test lint bench wheel-check clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# torch goes first and alone: with its version pinned, pip takes the CPU build where the index offers one.
$(VENV)/.installed: pyproject.toml .ci/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "dhm needs Python 3.10 or newer; name one with: make PYTHON=python3.12 demo"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt \
		--editable . mypy pytest ruff
	@touch $@

demo: $(VENV)/.installed ## Find the landmarks in sample_data/photos
	@rm -f demo/landmarks.csv.partial
	$(BIN)/dhm align sample_data/photos --out demo/landmarks.csv --overlay demo/overlays
	@echo "landmarks: demo/landmarks.csv"
	@echo "pictures:  demo/overlays"

test: $(VENV)/.installed ## Run the tests
	$(BIN)/python -m pytest

bench: $(VENV)/.installed ## Measure speed: networks, photos, folders, two processes
	$(BIN)/dhm benchmark --device cpu --threads 1 --level network --level crop --level photo --level folder \
		--processes 2 --json bench/speed.json --plot bench/speed.png

wheel-check: $(VENV)/.installed ## Build the wheel and use it away from the source
	rm -rf $(VENV)/wheel && mkdir -p $(VENV)/wheel
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(VENV)/wheel .
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(VENV)/wheel/site $(VENV)/wheel/*.whl
	cd $(VENV)/wheel && PYTHONPATH=site ../bin/python -c "import dhm_cli; assert 'wheel' in dhm_cli.__file__; \
		print(dhm_cli.__version__, dhm_cli.Aligner(device='cpu').engine.arch)"

lint: $(VENV)/.installed ## Check style and types
	$(BIN)/ruff check dhm_cli tests
	$(BIN)/ruff format --check dhm_cli tests
	$(BIN)/mypy

clean: ## Remove what make made
	rm -rf $(VENV) demo bench .pytest_cache .mypy_cache .ruff_cache dist
