# Every verb sets up .venv first, and only when pyproject.toml or constraints.txt changed.
# Extra arguments: make test ARGS="-k sampling -x"

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test test-slow quality style bench clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## Create .venv with the package and the development tools

# Twice -q hides pip's warnings and keeps its errors. The stamp comes last, so a failed install is tried again.
$(STAMP): pyproject.toml constraints.txt
	@echo "Installing kinetext into .venv (a minute or two) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q -q -c constraints.txt -e ".[dev,eval]"
	@touch $@

demo: $(STAMP)  ## Render clips, train X-CLIP and MoTED from a small CLIP, evaluate, save, classify and explain
	$(BIN)/kinetext demo $(ARGS)

# The tests of a file share what they build, so each file stays in one process.
test: $(STAMP)  ## Run the tests, without slow, gpu and network ones
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile $(ARGS)

test-slow: $(STAMP)  ## Run the slow tests, import time among them
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m "slow and not gpu and not network" $(ARGS)

quality: $(STAMP)  ## Check lint, format, types, docstrings and import direction
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q tests/test_structure.py

style: $(STAMP)  ## Fix lint and format where that is automatic
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## Run the benchmarks, at most ten minutes on a quiet machine; ends with the table in the README
	$(BIN)/python -m benchmarks $(ARGS)

clean:  ## Remove caches, build outputs and the demo folder; .venv and runs/ stay
	rm -rf build dist demo *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -not -path "./.venv/*" -prune -exec rm -rf {} +
