# Every target sets up what it needs in .venv; nothing else of the machine is touched.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
IMPLEMENTATIONS := $(VENV)/implementations
# A worker for each core, and one for the time that tests wait for processes that they start (a fifth, on two cores);
# 8 at most, since each holds torch and the engines in memory.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(len(os.sched_getaffinity(0)) + 1)')
# A file stays in one worker: what its tests share is made once.
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --maxprocesses 8 --dist loadfile --no-loadscope-reorder
# As a user's type checker sees the API: the examples, and one wrong use that must be noticed.
TYPED := examples tests/api/wrong_use.py
LINT := $(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/mypy $(TYPED) && $(BIN)/lint-imports

# Lint is mostly one process of mypy, and tests often wait for processes that they start: together they take the time
# of the tests. What lint says comes after them.
define with_lint
	@{ $(LINT); } >$(VENV)/lint.log 2>&1 & lint=$$!; \
	echo "$(1)"; $(1); tests=$$?; \
	wait $$lint; lint=$$?; cat $(VENV)/lint.log; exit $$((tests ? tests : lint))
endef

.PHONY: setup demo check test lint bench docs wheel clean

setup: $(READY)

# Its subject is the line, not the milliseconds: on a busy machine they are marked INVALID, and it still ends well.
demo: $(READY)
	$(BIN)/deploykit demo --allow-invalid

# Before each commit: minutes. What it leaves out is counted at its end.
check: $(READY)
	$(call with_lint,$(PYTEST) -m 'not slow and not ssh and not edge')

# Everything. What the machine lacks is skipped, and named at the end with the command that adds it;
# `PYTEST_ADDOPTS=--complete make test` fails for it.
test: $(READY) $(IMPLEMENTATIONS)/.ready
	$(call with_lint,$(PYTEST))

lint: $(READY)
	$(LINT)

# deploykit's files against stock tools, written to docs/benchmarks.md and docs/accuracy.md: makes and measures everything, so it is long.
# A part of it, after `make lint`:
# .venv/bin/python -m benchmarks --modes latency --quick
bench: $(READY)
	$(BIN)/python -m benchmarks --out docs

# The documentation as a site in site/, without a network; a link that leads nowhere fails it.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Needs Python alone, not the environment above.
wheel:
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) .deploykit reports dist build site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "deploykit needs Python 3.10 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable ".[all,keras,ncnn,nncf,ssh,tensorrt-rtx]" --group dev
	touch $(READY)

# Other people's DenseNets, for the tests alone: beside the environment and without dependencies, so that none of them
# can bring another torch.
$(IMPLEMENTATIONS)/.ready: tests/checkpoint/implementations.txt $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
		--target $(IMPLEMENTATIONS) --requirement tests/checkpoint/implementations.txt
	touch $@
