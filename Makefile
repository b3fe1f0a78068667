# Everything runs in .venv, made once from requirements.lock (every version pinned with hashes).
# PYTHON may be any of 3.11 to 3.13, VENV another folder:
#   make test PYTHON=python3.12 VENV=.venv-3.12
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help recorded quick ladder report readme ui screenshots test test-cluster coverage smoke
.PHONY: lint jax test-jax gpu lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

recorded: $(VENV)/ready  ## the recorded runs and their report: results without training
	$(BIN)/ladder restore --experiments studies/nielsen2015
	$(BIN)/ladder report --recorded --experiments studies/nielsen2015
	$(BIN)/ladder restore
	$(BIN)/ladder report --recorded --out reports/recorded \
		$(if $(DISPLAY)$(WAYLAND_DISPLAY)$(filter Darwin,$(shell uname)),--open)

quick: $(VENV)/ready  ## the whole ladder on bundled digits, in minutes
	$(BIN)/ladder run all,vgg --profile quick

ladder: $(VENV)/ready  ## the reproduction: five rungs on CIFAR-10
	$(BIN)/ladder run all

report: $(VENV)/ready  ## page, tables and figures, from what mlflow.db holds
	$(BIN)/ladder report

readme: $(VENV)/ready  ## the results in README and docs/, from results/
	$(BIN)/ladder report --readme results/
	$(BIN)/ladder report --readme studies/nielsen2015/results --experiments studies/nielsen2015
	$(BIN)/python -m docs.tour

ui: $(VENV)/ready  ## the runs in the MLflow UI, on 127.0.0.1
	$(BIN)/ladder ui

screenshots: $(VENV)/ready  ## the README's pictures, from results/ (Chromium must be there)
	$(BIN)/python -m docs.screenshots

test: $(VENV)/ready lint  ## lint and pytest
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-cluster: $(VENV)/ready  ## Ray, a server and PostgreSQL (must be there), faults
	$(BIN)/python -m pytest -m cluster

coverage: $(VENV)/ready  ## the tests' coverage, a line a file, and htmlcov/
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report term:skip-covered --cov-report html

smoke: $(VENV)/ready  ## one epoch of a small rung and its report, thrown away
	folder=$$(mktemp -d) && trap 'rm -r "$$folder"' EXIT && $(BIN)/ladder run 1 --profile quick \
		--set training.epochs=1 --set 'model.identity_blocks=[0,0,0]' \
		--tracking-uri "sqlite:///$$folder/mlflow.db"

lint: $(VENV)/ready  ## style, types, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

jax: .venv-jax/ready  ## Keras on JAX, without TensorFlow

JAX_TESTS ?= tests/training/test_backends.py tests/training/test_jax.py \
	tests/training/test_numerics.py tests/engines/test_lanes.py tests/benchmarks
test-jax: .venv-jax/ready  ## its tests, ten minutes
	KERAS_BACKEND=jax .venv-jax/bin/python -m pytest -n 2 --dist worksteal $(JAX_TESTS)

gpu: .venv-gpu/ready  ## Keras on JAX for an NVIDIA GPU (Linux)

# The extras are in the locks, so that one environment serves every target. The GPU's holds what
# JAX's does not: both go into one environment, and JAX's has the versions.
PROJECT := pyproject.toml --extra test --extra postgresql
COMPILE := $(BIN)/uv pip compile --upgrade --universal --generate-hashes --no-emit-index-url \
	--no-header --quiet

lock: $(VENV)/ready  ## the locks, with the newest versions that fit
	$(COMPILE) $(PROJECT) --output-file requirements.lock
	echo "tensorflow ; python_version < '3'" | $(COMPILE) $(PROJECT) --extra jax --override - \
		--constraint requirements.lock --output-file requirements-jax.lock
	$(COMPILE) --group gpu --constraint requirements-jax.lock --output-file requirements-gpu.lock \
		$$(sed -n 's/^\([^ ]*\)==.*/--no-emit-package \1/p' requirements-jax.lock | uniq)

# uv takes a fifth of pip's time; where it cannot reach the packages (pip has its own settings, of a
# mirror or a proxy), pip installs them.
PIP = $(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps
LOCKED = --require-hashes $(addprefix -r ,$(filter %.lock,$^))

$(VENV)/ready: requirements.lock
.venv-jax/ready: requirements-jax.lock
.venv-gpu/ready: requirements-jax.lock requirements-gpu.lock
%/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11 to 3.13 is needed, this is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12")'
	$(PYTHON) -m venv $*
	sed -n '/^uv==/,/[^\\]$$/p' $(filter %.lock,$^) > $*/uv.txt
	$(call PIP,$*) --require-hashes -r $*/uv.txt
	$*/bin/uv pip install --quiet --python $*/bin/python --no-deps $(LOCKED) \
		|| $(call PIP,$*) $(LOCKED)
	$(call PIP,$*) --no-build-isolation --editable .
	touch $@

clean:  ## environment and caches go, results stay
	rm -rf .venv .venv-jax .venv-gpu .venv-3.* .*_cache .coverage htmlcov .hypothesis build *.egg-info
