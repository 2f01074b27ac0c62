# Two doors: `make demo` sets everything up and runs the main job, `make test` sets everything up and passes the tests.
# Both need Python 3.11 or newer and nothing else.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PACKAGES := ml_core deployments k8s

.DEFAULT_GOAL := help
.PHONY: help install demo up down status test soak lint format lock clean

help:  ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

install: $(READY)  ## Make .venv and install the locked packages

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "ML Core needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Installing the locked packages into $(VENV); this takes about a minute, once."
	@$(PYTHON) -m venv $(VENV) || { echo "This Python can't make a virtual environment; on Debian: apt install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --require-hashes --requirement requirements.lock
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

test: $(READY)  ## Run the tests: the embedded Postgres, Ray and Ray Serve are started by themselves
	@$(BIN)/python -m pytest -m "not alone" -n 2 --dist loadfile --no-loadscope-reorder
	@$(BIN)/python -m pytest -m alone

soak: $(READY)  ## Kill processes of jobs 50 times at random moments; each job must end in one version (half an hour)
	@MLCORE_TEST_KILLS=50 $(BIN)/python -m pytest tests/chaos/test_job_kills.py

lint: $(READY)  ## Check style, types and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(READY)  ## Rewrite the code in the project's style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: $(READY)  ## Renew requirements.lock from pyproject.toml (needs uv on the PATH)
	uv pip compile --quiet --universal --python-version 3.11 --extra dev --extra demo --generate-hashes \
		--no-emit-index-url --no-header --no-annotate pyproject.toml --output-file requirements.lock

clean:  ## Remove .venv and caches; the platform's data is not touched
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
