# Every target sets up what it needs. `make` alone lists them.
# Python: the first of python3.11, python3.12 and python3 that is a 3.11 or 3.12; or name one: make test PYTHON=python3.12
# (each named Python gets virtual environments of its own, e.g. .venv-python3.12).

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

ifeq ($(origin PYTHON),undefined)
  PYTHON := $(shell for name in python3.11 python3.12 python3; do \
      "$$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && { echo "$$name"; break; }; done)
else
  SUFFIX := -$(notdir $(PYTHON))
endif

VENV := .venv$(SUFFIX)
MONITORING := .venv-monitoring$(SUFFIX)
TOOLS := .venv-tools$(SUFFIX)
ROOMS := features transforms models inference monitoring components pipelines simulation plumb
CODE := $(ROOMS) tests $(wildcard benchmarks)
# Two test processes: one per core of the smallest machine we aim at, about 2 GB each with TensorFlow. A file stays in
# one process, so that a module's fixtures (a fitted graph, a server) are built once.
TEST_PROCESSES ?= 2
SECONDS_LONG ?= 600
# Of uv, where it is there; else of a small environment that holds only uv.
UV := $(shell uv --version >/dev/null 2>&1 && echo uv || echo $(TOOLS)/bin/uv)
UV_READY := $(if $(filter uv,$(UV)),,$(TOOLS)/.ready)
# A stray folder in the current directory must not shadow one of our packages.
export PYTHONSAFEPATH := 1
export UV_NO_PROGRESS := 1

.PHONY: help setup demo test e2e check bench bench-online bench-serving bench-stream bench-rollouts bench-drift bench-audience bench-audience-journey bench-audience-uplift bench-send-time bench-early-warning audit chaos format lock clean python

help:  ## list the targets (this)
	@grep -hE '^[a-z0-9-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | awk -F ':.*## ' '{printf "make %-15s %s\n", $$1, $$2}'

setup: $(VENV)/.ready $(MONITORING)/.ready  ## create both locked environments, or bring them up to date

demo: $(VENV)/.ready  ## simulate, import, train, serve, ask and roll out a churn model, end to end
	$(VENV)/bin/plumb demo --workspace demo-workspace

test: $(VENV)/.ready $(MONITORING)/.ready  ## run all tests in both environments (CI runs this)
	tests/services/install.sh
	$(VENV)/bin/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --ignore=tests/e2e
	$(MONITORING)/bin/python -m pytest -c tests/monitoring_env/pytest.ini tests/monitoring_env

e2e: $(VENV)/.ready  ## kill, pause and restart the stream on real stores and logs (CI runs this)
	tests/services/install.sh
	$(VENV)/bin/python -m pytest tests/e2e

check: $(VENV)/.ready  ## lint, format, types, doors (CI runs this)
	$(VENV)/bin/ruff check $(CODE)
	$(VENV)/bin/ruff format --check $(CODE)
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mypy

bench: $(VENV)/.ready  ## measure speed beside the floor that each figure is compared with
	$(VENV)/bin/python -m benchmarks

bench-online: $(VENV)/.ready  ## measure lookups on Redis and LMDB beside raw redis-py and Feast
	tests/services/install.sh
	PYTHONPATH=tests $(VENV)/bin/python -m benchmarks.online

bench-serving: $(VENV)/.ready  ## measure the server beside KServe's Feast transformer and KServe's bare server
	tests/services/install.sh
	PYTHONPATH=tests $(VENV)/bin/python -m benchmarks.serving

bench-stream: $(VENV)/.ready  ## measure the stream: events into the store, freshness, beside Beam's sliding windows
	PYTHONPATH=tests $(VENV)/bin/python -m benchmarks.stream

bench-rollouts: $(VENV)/.ready  ## simulate rollouts: good canaries rolled back, bad ones found, beside common judges
	$(VENV)/bin/python -m benchmarks.rollouts

bench-audience: $(VENV)/.ready  ## score a million users for a hundred campaigns, state to Delta, beside row by row
	PYTHONPATH=tests $(VENV)/bin/python -m benchmarks.audience

bench-audience-journey: $(VENV)/.ready  ## ask Complete Journey how good audiences are; JOURNEY=FOLDER of its Parquet files
	$(VENV)/bin/python -m benchmarks.audience_journey $(JOURNEY)

bench-audience-uplift: $(VENV)/.ready  ## ask Hillstrom's test what audiences cause; HILLSTROM=FILE
	$(VENV)/bin/python -m benchmarks.audience_uplift $(HILLSTROM)

bench-drift: $(MONITORING)/.ready  ## measure drift detection: time, false alarms of null days, seasons, delay
	$(MONITORING)/bin/python -m benchmarks.drift

bench-early-warning: $(MONITORING)/.ready  ## simulate falling conversion: the day early labels alarm beside matured ones; false alarms
	$(MONITORING)/bin/python -m benchmarks.early_warning

bench-send-time: $(VENV)/.ready  ## measure send time: planted hours found, beside the bound; SITE=FILE adds real activity
	$(VENV)/bin/python -m benchmarks.send_time $(if $(SITE),--site $(SITE))

chaos: $(VENV)/.ready  ## kill controller, plane and servers at random while versions are rolled out (SECONDS_LONG=600)
	PYTHONPATH=tests $(VENV)/bin/python -m benchmarks.chaos --seconds $(SECONDS_LONG)

audit: $(VENV)/.ready  ## serve a million rows from a live, killed and restarted stream, then make all of them again
	PYTHONPATH=tests $(VENV)/bin/python -m benchmarks.audit

format: $(VENV)/.ready  ## rewrite the code as `make check` wants it
	$(VENV)/bin/ruff check --fix $(CODE)
	$(VENV)/bin/ruff format $(CODE)

COMPILE = $(UV) pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

lock: $(UV_READY)  ## resolve the newest allowed versions of everything into locks/
	$(COMPILE) --extra main --group dev --output-file locks/main.txt
	$(COMPILE) --extra monitoring --group monitoring-dev --override locks/monitoring-overrides.txt --output-file locks/monitoring.txt
	echo uv | $(UV) pip compile - --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --custom-compile-command "make lock" --output-file locks/tools.txt

clean:  ## remove environments, caches and the demo's workspace
	rm -rf .venv .venv-* demo-workspace build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

python:
	@$(if $(PYTHON),,echo "plumbline: no Python 3.11 or 3.12 found; expected python3.11, python3.12 or python3 of that version on PATH;" \
	    "next: install one, or name it: make setup PYTHON=/path/to/python3.11" >&2; exit 1)
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null || { \
	    echo "plumbline: cannot use PYTHON=$(PYTHON); expected a Python 3.11 or 3.12 that starts;" \
	    "got $$("$(PYTHON)" --version 2>&1 | head -1); next: install one, or name another" >&2; exit 1; }

# A stamp is newer than its lock and pyproject.toml only after a complete installation.
$(TOOLS)/.ready: locks/tools.txt | python
	@"$(PYTHON)" -m venv --clear $(TOOLS) || { \
	    echo "plumbline: cannot make a virtual environment; $(PYTHON) lacks its venv module;" \
	    "next: install it (Debian: apt-get install python3-venv), or put uv on PATH" >&2; exit 1; }
	$(TOOLS)/bin/python -m pip install --quiet --require-hashes -r locks/tools.txt
	@touch $@

$(VENV)/.ready: locks/main.txt pyproject.toml $(UV_READY) | python
	$(call install,$(VENV),locks/main.txt)

$(MONITORING)/.ready: locks/monitoring.txt pyproject.toml $(UV_READY) | python
	$(call install,$(MONITORING),locks/monitoring.txt)

define install
@echo "setting up $(1) from $(2)"
@test -x $(1)/bin/python || $(UV) venv --quiet --allow-existing --no-python-downloads --python "$(PYTHON)" $(1)
@$(UV) pip sync --quiet --require-hashes --python $(1)/bin/python $(2)
@$(UV) pip install --quiet --python $(1)/bin/python --no-deps --no-build-isolation --editable .
@touch $@
endef
