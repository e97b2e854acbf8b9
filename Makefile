# `make quickstart` and `make test` install everything they need except Python 3.11 and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
# Two workers: one TensorFlow process rarely uses two cores with tests this small.
WORKERS ?= 2
# Extra arguments for pytest: make test ARGS="-k triplet -x"
ARGS ?=

# tensorflow-addons requires Keras 2 and Python 3.11 or older. Tests and benchmarks compare results
# with it; it is installed into a separate environment.
ADDONS ?= .venv-addons
ifndef KERAS_METRIC_TFA_PYTHON
ORACLE := $(ADDONS)/.done
endif

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# One thread for each worker: more threads compete for the two cores.
PYTEST := TF_NUM_INTRAOP_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -q

# TensorFlow logs missing GPUs as errors; silence them. keras_metric_startup.py hides the messages
# that TensorFlow writes before it reads this variable.
export TF_CPP_MIN_LOG_LEVEL ?= 3

.DEFAULT_GOAL := help
.PHONY: help quickstart test fuzz health mutants package lint format thorough bench bench-index bench-gpu jax torch milvus parity examples notebooks browser docs docs-more docs-site ci clean

help: ## show the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

quickstart: $(VENV)/.user ## train and evaluate an encoder on MNIST digits (a few minutes)
	$(BIN)/python examples/mnist.py

# The slow tests run the examples: `make examples`.
test: $(VENV)/.dev ## the tests, on TensorFlow
	KERAS_BACKEND=tensorflow $(PYTEST) -m "not parity and not milvus and not slow and not thorough and not browser" $(ARGS)

thorough: $(VENV)/.dev ## every setting of every loss, compiled and in every precision
	KERAS_BACKEND=tensorflow $(PYTEST) -m thorough $(ARGS)

# Number of invalid inputs for each public name; the test suite uses fewer.
FUZZ ?= 200
fuzz: $(VENV)/.dev ## invalid and extreme input for every public name
	KERAS_BACKEND=tensorflow KERAS_METRIC_FUZZ=$(FUZZ) $(PYTEST) tests/test_hostile.py $(ARGS)

health: $(VENV)/.milvus ## import time, types, public names, mutants and coverage in a few figures
	$(BIN)/python benchmarks/health.py $(ARGS)

mutants: $(VENV)/.dev ## do the tests detect 200 small faults, one at a time? (hours)
	KERAS_BACKEND=tensorflow $(BIN)/python benchmarks/mutants.py $(ARGS)

package: $(VENV)/.dev ## build wheel and source, install each into an empty environment, run it
	rm -rf build dist
	$(BIN)/python -m build
	for made in dist/*.whl dist/*.tar.gz; do \
		rm -rf build/empty && $(PYTHON) -m venv build/empty && \
		build/empty/bin/python -m pip --disable-pip-version-check --quiet install "$$made" && \
		cp tests/smoke.py build/smoke.py && \
		(cd build && env -u PYTHONPATH empty/bin/python smoke.py) || exit 1; \
	done

lint: $(VENV)/.dev ## rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev ## rewrite the files to pass `make lint`
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# JAX would compile every setting of the thorough tests; TensorFlow and PyTorch run them.
# JAX compiles each operation for each shape; the workers share this cache of compiled code.
jax parity: export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/$(VENV)/jax-cache
jax parity: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS = 0
jax parity: export JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES = -1
jax: $(VENV)/.jax ## the tests, on JAX
	KERAS_BACKEND=jax $(PYTEST) -m "not parity and not milvus and not slow and not thorough and not browser" $(ARGS)

torch: $(VENV)/.torch ## the tests, on PyTorch
	KERAS_BACKEND=torch $(PYTEST) -m "not parity and not milvus and not slow and not browser" $(ARGS)

milvus: $(VENV)/.milvus ## the tests of the index, on Milvus in the same process
	KERAS_BACKEND=tensorflow $(PYTEST) -m milvus $(ARGS)

parity bench: export KERAS_METRIC_TFA_PYTHON ?= $(CURDIR)/$(ADDONS)/bin/python
# Losses with trainable weights run on every backend, because their gradients train the weights.
parity: $(VENV)/.parity $(VENV)/.jax $(ORACLE) ## compare results with other libraries
	KERAS_BACKEND=tensorflow $(PYTEST) -n 0 -m parity $(ARGS)
	KERAS_BACKEND=torch $(PYTEST) -m parity tests/parity/test_parity_classes.py
	KERAS_BACKEND=jax $(PYTEST) -m parity tests/parity/test_parity_classes.py

# JAX and PyTorch are needed by tests/distributed.
examples: $(VENV)/.jax $(VENV)/.torch ## the slow tests: every example with a short run
	KERAS_BACKEND=tensorflow $(PYTEST) -m slow $(ARGS)

# The test is skipped if Chromium is not installed.
browser: $(VENV)/.browser ## TensorBoard in Chromium, on the logs of the quickstart
	KERAS_BACKEND=tensorflow $(PYTEST) -n 0 -m browser -rs tests/viz/test_browser.py $(ARGS)

notebooks: $(VENV)/.dev ## the examples as notebooks, build/notebooks
	$(BIN)/python docs/make_notebooks.py

bench: $(VENV)/.bench $(ORACLE) ## the benchmarks, compared with other libraries
	$(BIN)/python benchmarks/losses.py
	$(BIN)/python benchmarks/losses.py --every
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/memory.py --every
	$(BIN)/python benchmarks/classes.py
	$(BIN)/python benchmarks/fit.py
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/data.py

bench-index: $(VENV)/.dev ## benchmark of the index, compared with FAISS, and of the service
	$(BIN)/python benchmarks/index.py

# setup.cfg does not require GPU builds of TensorFlow, JAX and PyTorch: install them first.
bench-gpu: $(VENV)/.bench ## the benchmarks on a GPU
	$(BIN)/python benchmarks/gpu.py

docs: $(VENV)/.dev ## run every code block of README.md, docs/ and the docstrings
	KERAS_BACKEND=tensorflow $(PYTEST) tests/test_docs.py $(ARGS)

docs-more: $(VENV)/.more ## the code blocks that need more packages: ONNX, LiteRT, KerasTuner
	KERAS_BACKEND=tensorflow $(PYTEST) -n 0 -rs tests/test_docs.py -k need $(ARGS)

docs-site: $(VENV)/.docs ## the documentation as a site, build/site: links checked, no network needed
	$(BIN)/mkdocs build --strict

ci: test thorough lint jax torch milvus parity examples ## all that continuous integration runs

clean: ## remove all files that the targets created
	rm -rf $(VENV) $(ADDONS) build dist runs *.egg-info .pytest_cache .ruff_cache

# One stamp file for each set of extras, so that a second run installs nothing.
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

$(VENV)/.milvus: setup.cfg $(VENV)/.dev
	$(PIP) install --use-pep517 -e '.[dev,examples,milvus]'
	@touch $@

$(VENV)/.docs: setup.cfg $(VENV)/.dev
	$(PIP) install --use-pep517 -e '.[dev,examples,docs]'
	@touch $@

$(VENV)/.more: setup.cfg $(VENV)/.dev
	$(PIP) install --use-pep517 -e '.[dev,examples,deploy,tuner]'
	@touch $@

$(VENV)/.browser: setup.cfg $(VENV)/.dev
	$(PIP) install --use-pep517 -e '.[dev,examples,browser]'
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
