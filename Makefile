# Everything from a fresh clone: `make demo` and `make test` need Python >= 3.10 and nothing else installed.
# Without a C++ compiler the native core is left out and the reference takes over.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
SOURCES := $(shell find src csrc -type f -not -name '*.pyc') pyproject.toml CMakeLists.txt constraints.txt

.PHONY: demo test lint clean

demo: $(VENV)/.stamp-run
	$(VENV)/bin/linocut demo

test: $(VENV)/.stamp-test
	OMP_WAIT_POLICY=PASSIVE $(VENV)/bin/python -m pytest

lint: $(VENV)/.stamp-lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) build dist demo-out .mypy_cache .pytest_cache .ruff_cache

$(VENV)/.stamp-venv:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.stamp-run: $(VENV)/.stamp-venv $(SOURCES)
	$(PIP) install --quiet --constraint constraints.txt .
	touch $@

$(VENV)/.stamp-test: $(VENV)/.stamp-venv $(SOURCES)
	$(PIP) install --quiet --constraint constraints.txt '.[test,train]'
	touch $@ $(VENV)/.stamp-run

$(VENV)/.stamp-lint: $(VENV)/.stamp-test
	$(PIP) install --quiet --constraint constraints.txt '.[lint]'
	touch $@
