# `make quickstart` and `make test` do all their own set-up: they need Python 3.11 and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
# Two workers: the tests are many and small, and TensorFlow alone rarely fills two cores.
WORKERS ?= 2
# Extra arguments for pytest: make test ARGS="-k triplet -x"
ARGS ?=

# tensorflow-addons stopped with Keras 2 and Python 3.11: it lives in an environment of its own.
ADDONS ?= .venv-addons
ifndef KERAS_METRIC_TFA_PYTHON
ORACLE := $(ADDONS)/.done
endif

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# One thread for each worker: more only wait for each other.
PYTEST := TF_NUM_INTRAOP_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -q

# TensorFlow speaks of missing GPUs as of errors; real ones are exceptions.
export TF_CPP_MIN_LOG_LEVEL ?= 3

.DEFAULT_GOAL := help
.PHONY: help quickstart test lint format thorough bench bench-gpu jax torch parity examples docs ci clean

help: ## show the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

quickstart: $(VENV)/.user ## train and judge an encoder on real digits (a few minutes)
	$(BIN)/python examples/mnist.py

# The slow ones are long forms of the examples: `make examples` runs them.
test: $(VENV)/.dev ## the tests, on TensorFlow
	KERAS_BACKEND=tensorflow $(PYTEST) -m "not parity and not slow and not thorough" $(ARGS)

thorough: $(VENV)/.dev ## every setting of every loss, compiled and in every precision
	KERAS_BACKEND=tensorflow $(PYTEST) -m thorough $(ARGS)

lint: $(VENV)/.dev ## rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev ## rewrite the files as `make lint` wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Each setting would be compiled anew: TensorFlow and PyTorch run them all.
jax: $(VENV)/.jax ## the tests, on JAX
	KERAS_BACKEND=jax $(PYTEST) -m "not parity and not slow and not thorough" $(ARGS)

torch: $(VENV)/.torch ## the tests, on PyTorch
	KERAS_BACKEND=torch $(PYTEST) -m "not parity and not slow" $(ARGS)

parity bench: export KERAS_METRIC_TFA_PYTHON ?= $(CURDIR)/$(ADDONS)/bin/python
parity: $(VENV)/.parity $(ORACLE) ## our numbers beside the peers', live
	KERAS_BACKEND=tensorflow $(PYTEST) -n 0 -m parity $(ARGS)

examples: $(VENV)/.dev ## the long tests: every example in its short form
	KERAS_BACKEND=tensorflow $(PYTEST) -m slow $(ARGS)

bench: $(VENV)/.bench $(ORACLE) ## the benchmarks, beside the peers
	$(BIN)/python benchmarks/losses.py
	$(BIN)/python benchmarks/losses.py --every
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/fit.py

# setup.cfg asks for no builds of TensorFlow, JAX and PyTorch that see a device: bring them.
bench-gpu: $(VENV)/.bench ## the same on an accelerator, where there is one
	$(BIN)/python benchmarks/gpu.py

docs: $(VENV)/.dev ## run every code block of README.md, docs/ and the docstrings
	KERAS_BACKEND=tensorflow $(PYTEST) tests/test_docs.py $(ARGS)

ci: test thorough lint jax torch parity examples ## all that continuous integration runs

clean: ## remove what the targets made
	rm -rf $(VENV) $(ADDONS) build dist runs *.egg-info .pytest_cache .ruff_cache

# One stamp for each set of extras, so that a second run installs nothing.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No python3.11 or python3 found: set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.user: setup.cfg | $(BIN)/python
	$(PIP) install --use-pep517 -e '.[examples]'
	@touch $@

$(VENV)/.dev: setup.cfg | $(BIN)/python
	$(PIP) install --use-pep517 -e '.[dev,examples]'
	@touch $@

$(VENV)/.jax: setup.cfg $(VENV)/.dev
	$(PIP) install --use-pep517 -e '.[dev,examples,jax]'
	@touch $@

$(VENV)/.torch: setup.cfg $(VENV)/.dev
	$(PIP) install --use-pep517 -e '.[dev,examples,torch]'
	@touch $@

$(VENV)/.parity: setup.cfg $(VENV)/.torch
	$(PIP) install --use-pep517 -e '.[dev,examples,parity]'
	@touch $@

$(ADDONS)/.done:
	$(PYTHON) -m venv $(ADDONS)
	$(ADDONS)/bin/python -m pip --disable-pip-version-check --quiet install \
		'tensorflow-cpu==2.15.1' 'tensorflow-addons==0.23.0' 'numpy<2'
	@touch $@

$(VENV)/.bench: setup.cfg $(VENV)/.parity
	$(PIP) install --use-pep517 -e '.[dev,examples,parity,jax]'
	@touch $@
