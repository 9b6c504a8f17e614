# All commands of the project. `make help` lists them; CI calls nothing else.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KUBEFLOW := $(VENV)-kubeflow
STAMP := $(VENV)/.set-up

# A workspace per folder of shapes, pipeline and profile: runs/demo, runs/meshes-demo, runs/meshes-multimodal-demo, ...
DATA ?=
PIPELINE ?= pretrain
PROFILE ?= demo
TRAIN_LIST ?=
TEST_LIST ?=
UP ?=
quoted = '$(subst ','\'',$(value $(1)))'
KIND := $(patsubst pretrain-%,%,$(PIPELINE)-$(PROFILE))
NAME ?= $(if $(DATA),$(shell basename -- $(call quoted,DATA) | tr -c 'A-Za-z0-9._\n-' '-')-$(KIND),$(KIND))
WORKSPACE := runs/$(NAME)
PORT ?=

# Images: where Python comes from, what building needs besides (docker/Dockerfile), where pip finds torch's CPU build.
BASE ?= python:3.11-slim-bookworm
BUILD_BASE ?= $(BASE)
TORCH_INDEX ?=
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' pointloom/_version.py)
IN_IMAGES := pointloom docker pyproject.toml constraints.txt README.md LICENSE
EDITED = $(if $(shell git status --porcelain -- $(IN_IMAGES) 2>/dev/null),-edited)
REVISION = $(shell git rev-parse HEAD 2>/dev/null)$(EDITED)
TAG ?= $(VERSION)-$(shell git rev-parse --short=12 HEAD)$(EDITED)
IMAGES := train multimodal data

# Threads that wait for each other spin briefly, then sleep: endless spinning is 20 times slower where other work shares
# the cores, sleeping at once is 1.8 times slower where none does.
export GOMP_SPINCOUNT ?= 20000
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONUNBUFFERED := 1

.PHONY: help setup demo compile submit ui test test-slow test-kubeflow images rehearse test-docker lint format type bench bench-compare faults ci clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20
	@echo
	@echo "  make demo DATA=folder [PIPELINE=pretrain|systems|multimodal|scenes|detection] [PROFILE=smoke|demo|paper]"
	@echo "            [TRAIN_LIST=file TEST_LIST=file] [UP=x|y|z] [NAME=name]"

setup: $(STAMP) ## Make .venv with everything that is needed

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "Python 3.11 to 3.13 is needed, $(PYTHON) is $$($(PYTHON) --version); try: make PYTHON=python3.11 ..."; exit 1; }
	@if [ -x $(BIN)/python ]; then echo "Bringing $(VENV) up to date."; \
	elif $(PYTHON) -m pip index versions torch 2>/dev/null | grep -q '2\.13\.0+cpu'; then \
	  echo "Set-up in $(VENV): downloads about 0.7 GB (torch as CPU build), needs 3 GB of disk."; \
	else \
	  echo "Set-up in $(VENV): downloads about 4 GB, needs 9 GB of disk, because pip finds torch with CUDA libraries."; \
	  echo "For the CPU build (0.7 GB, 3 GB of disk) give pip PyTorch's CPU index first; README, section Platforms."; \
	fi
	@df -h . | awk 'NR == 2 { print "Free here: " $$4 }'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[workspace,s3,multimodal,dev]'
	@touch $(STAMP)

demo: $(STAMP) ## Run the whole chain: on generated shapes, or on DATA=folder; prints where the report is
	$(BIN)/pointloom init $(call quoted,WORKSPACE) --pipeline $(PIPELINE) --profile $(PROFILE) \
	  $(if $(DATA),--data $(call quoted,DATA)) $(if $(UP),--up $(UP)) \
	  $(if $(TRAIN_LIST),--train-list $(call quoted,TRAIN_LIST)) $(if $(TEST_LIST),--test-list $(call quoted,TEST_LIST))
	$(BIN)/pointloom run --workspace $(call quoted,WORKSPACE)

# kfp pins some libraries at versions of its own: it gets an environment on top of the other one.
$(KUBEFLOW)/.set-up: $(STAMP) pipelines/requirements.txt
	$(BIN)/python -m venv $(KUBEFLOW)
	$(KUBEFLOW)/bin/python -m pip install --quiet --requirement pipelines/requirements.txt
	@site() { "$$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }; \
	  echo "import site; site.addsitedir('$$(site $(VENV))')" >"$$(site $(KUBEFLOW))/workspace.pth"
	@touch $@

compile: $(KUBEFLOW)/.set-up ## Compile the Kubeflow pipelines to pipelines/compiled (docs/kubeflow.md)
	$(KUBEFLOW)/bin/python -m pipelines.compile

submit: $(KUBEFLOW)/.set-up ## Start a Kubeflow pipeline: make submit PIPELINE=pretrain ARGS="--host http://... --wait"
	$(KUBEFLOW)/bin/python -m pipelines.submit $(PIPELINE) $(ARGS)

ui: $(STAMP) ## Show the runs of the demo (or NAME=...) in MLflow's user interface; PORT=... is optional
	$(BIN)/pointloom ui --workspace $(call quoted,WORKSPACE) $(if $(PORT),--port $(PORT))

test: $(STAMP) ## Run the tests (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile -m "not slow and not gpu and not docker and not compile"

test-slow: $(STAMP) ## Run the slow tests: whole pipelines, kills, servers
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "slow and not gpu and not docker"

images: ## Build the images train, multimodal and data; prints their sizes (docs/operations.md)
	for image in $(IMAGES); do \
	  docker build --quiet --network host --file docker/Dockerfile --target $$image \
	    --build-arg BASE=$(BASE) --build-arg BUILD_BASE=$(BUILD_BASE) --build-arg PIP_EXTRA_INDEX_URL=$(TORCH_INDEX) \
	    --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) --tag pointloom-$$image:$(TAG) . >/dev/null; \
	done
	@docker image ls --filter 'reference=pointloom-*:$(TAG)' --format 'table {{.Repository}}:{{.Tag}}\t{{.Size}}'

test-kubeflow: $(KUBEFLOW)/.set-up ## Run the tests of components and pipelines
	$(KUBEFLOW)/bin/python -m pytest -m "not docker" tests/components tests/pipelines

rehearse: $(KUBEFLOW)/.set-up ## Run a pipeline in the images of make images: make rehearse [PIPELINE=...] [PROFILE=smoke] [TAG=...]
	$(KUBEFLOW)/bin/python -m pipelines.run $(PIPELINE) --tag $(TAG) $(if $(filter file,$(origin PROFILE)),,--profile $(PROFILE)) $(ARGS)

test-docker: $(KUBEFLOW)/.set-up ## Build the images, run them, rehearse the pipeline in them (needs a Docker engine)
	PATH="$(abspath $(BIN)):$$PATH" $(KUBEFLOW)/bin/python -m pytest -m docker tests/docker

lint: $(STAMP) ## Check style, layers and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	git ls-files -z | xargs -0 $(BIN)/codespell --toml pyproject.toml

format: $(STAMP) ## Bring the source into its style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

type: $(STAMP) ## Check types
	$(BIN)/mypy

bench: $(STAMP) ## Measure operations, training step, scaling, data engine, stages (minutes); writes runs/bench or OUTPUT=folder
	$(BIN)/python -m benchmarks.run_all run '$(or $(OUTPUT),runs/bench)'

faults: $(STAMP) ## Break a training in every way and print what came of it (minutes; as root also full and read-only disks)
	$(BIN)/python -m benchmarks.faults

bench-compare: $(STAMP) ## Compare two measurements: make bench-compare A=folder B=folder
	@test -n '$(A)' -a -n '$(B)' || { echo "Say which: make bench-compare A=folder B=folder (each written by make bench OUTPUT=folder)"; exit 1; }
	$(BIN)/python -m benchmarks.run_all compare '$(A)' '$(B)'

ci: ## Everything that CI does, from a fresh environment
	.ci/run

clean: ## Remove what make has made: .venv, runs, caches, builds
	rm -rf $(VENV) $(KUBEFLOW) runs build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
