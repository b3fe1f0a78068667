# Everything runs in .venv, which is installed once from requirements.lock.
# To use another Python (3.11 to 3.13) and another folder:
#   make test PYTHON=python3.12 VENV=.venv-3.12
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help recorded quick ladder report readme ui screenshots test test-cluster coverage smoke
.PHONY: lint jax test-jax gpu lock clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

recorded: $(VENV)/ready  ## import the recorded runs and write their report, without training
	$(BIN)/ladder restore --experiments studies/nielsen2015
	$(BIN)/ladder report --recorded --experiments studies/nielsen2015
	$(BIN)/ladder restore
	$(BIN)/ladder report --recorded --out reports/recorded \
		$(if $(DISPLAY)$(WAYLAND_DISPLAY)$(filter Darwin,$(shell uname)),--open)

quick: $(VENV)/ready  ## train the whole ladder on bundled images of digits, in minutes
	$(BIN)/ladder run all,vgg --profile quick

ladder: $(VENV)/ready  ## train the five rungs on CIFAR-10
	$(BIN)/ladder run all

report: $(VENV)/ready  ## write the report on the runs in mlflow.db: page, tables, figures
	$(BIN)/ladder report

readme: $(VENV)/ready  ## write the results into README.md and docs/, from results/
	$(BIN)/ladder report --readme results/
	$(BIN)/ladder report --readme studies/nielsen2015/results --experiments studies/nielsen2015
	$(BIN)/python -m docs.tour

ui: $(VENV)/ready  ## show the runs in MLflow's UI, on 127.0.0.1
	$(BIN)/ladder ui

screenshots: $(VENV)/ready  ## make the README's pictures from results/ (needs Chromium)
	$(BIN)/python -m docs.screenshots

test: $(VENV)/ready lint  ## run lint and pytest
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-cluster: $(VENV)/ready  ## run the tests of Ray, a server and faults (needs PostgreSQL)
	$(BIN)/python -m pytest -m cluster

coverage: $(VENV)/ready  ## run the tests and show which lines they cover, also in htmlcov/
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report term:skip-covered --cov-report html

smoke: $(VENV)/ready  ## train one epoch of a small rung and delete its results
	folder=$$(mktemp -d) && trap 'rm -r "$$folder"' EXIT && $(BIN)/ladder run 1 --profile quick \
		--set training.epochs=1 --set 'model.identity_blocks=[0,0,0]' \
		--tracking-uri "sqlite:///$$folder/mlflow.db"

lint: $(VENV)/ready  ## check style, types, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

jax: .venv-jax/ready  ## install Keras on JAX, without TensorFlow, into .venv-jax

JAX_TESTS ?= tests/training/test_backends.py tests/training/test_jax.py \
	tests/training/test_numerics.py tests/engines/test_lanes.py tests/benchmarks
test-jax: .venv-jax/ready  ## run the tests of Keras on JAX (ten minutes)
	KERAS_BACKEND=jax .venv-jax/bin/python -m pytest -n 2 --dist worksteal $(JAX_TESTS)

gpu: .venv-gpu/ready  ## install Keras on JAX for an NVIDIA GPU into .venv-gpu (Linux)

# The locks include the extras, so that one environment serves every target. .venv-gpu is installed
# from two locks: requirements-gpu.lock has only the packages that requirements-jax.lock lacks.
PROJECT := pyproject.toml --extra test --extra postgresql
COMPILE := $(BIN)/uv pip compile --upgrade --universal --generate-hashes --no-emit-index-url \
	--no-header --quiet

lock: $(VENV)/ready  ## write the lock files, with the newest versions that fit together
	$(COMPILE) $(PROJECT) --output-file requirements.lock
	echo "tensorflow ; python_version < '3'" | $(COMPILE) $(PROJECT) --extra jax --override - \
		--constraint requirements.lock --output-file requirements-jax.lock
	$(COMPILE) --group gpu --constraint requirements-jax.lock --output-file requirements-gpu.lock \
		$$(sed -n 's/^\([^ ]*\)==.*/--no-emit-package \1/p' requirements-jax.lock | uniq)

# uv takes a fifth of pip's time. If uv cannot reach the packages, pip installs them, because pip may
# have settings for a mirror or a proxy.
PIP = $(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps
LOCKED = --require-hashes $(addprefix -r ,$(filter %.lock,$^))

$(VENV)/ready: requirements.lock
.venv-jax/ready: requirements-jax.lock
.venv-gpu/ready: requirements-jax.lock requirements-gpu.lock
%/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11 to 3.13 is needed, but this is " + sys.version.split()[0] + ". Choose another: make PYTHON=python3.12")'
	$(PYTHON) -m venv $*
	sed -n '/^uv==/,/[^\\]$$/p' $(filter %.lock,$^) > $*/uv.txt
	$(call PIP,$*) --require-hashes -r $*/uv.txt
	$*/bin/uv pip install --quiet --python $*/bin/python --no-deps $(LOCKED) \
		|| $(call PIP,$*) $(LOCKED)
	$(call PIP,$*) --no-build-isolation --editable .
	touch $@

clean:  ## delete environments and caches; results stay
	rm -rf .venv .venv-jax .venv-gpu .venv-3.* .*_cache .coverage htmlcov .hypothesis build *.egg-info
