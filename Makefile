# The one front door for chores; `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := .demo
TORCH ?= torch==2.13.0

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint format docs bench gallery clean

help: ## list the chores
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A stamp for each set of packages: made again when pyproject.toml changes.
$(VENV)/.demo: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing Enginery and OpenVINO into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[openvino,pictures]"
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	@echo "installing what the tests need into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev
	@touch $@

$(VENV)/.models: $(VENV)/.test
	@echo "installing PyTorch and the models the tests export into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group models
	@touch $@

demo: $(VENV)/.demo ## optimise the digits network on real data, then read a real digit with the engine
	@mkdir -p $(DEMO)
	$(BIN)/enginery optimize examples/digits/digits.onnx --shapes "image=1..32..32x1x8x8" \
	  --data examples/digits/heldout.npz --output $(DEMO)/digits.engine
	@echo
	$(BIN)/python examples/digits/predict.py $(DEMO)/digits.engine

test: $(VENV)/.models ## run the tests (slow and GPU ones are run by name)
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: $(VENV)/.models ## run the tests that take minutes
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.test ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.test ## run every snippet of README, docs and docstrings
	$(BIN)/python -m pytest tests/docs

bench: $(VENV)/.models ## measure what a session costs over the library it wraps
	$(BIN)/python benchmarks/session_overhead.py

gallery: $(VENV)/.models ## take some eighty architectures from export to verification (about half an hour)
	$(BIN)/python -m benchmarks.gallery --output benchmarks/results/gallery.json

clean: ## remove the virtual environment and what the demo made
	rm -rf $(VENV) $(DEMO)
