# Everything from a fresh clone: `make demo` and `make test` need Python >= 3.10 and nothing else installed.
# Without a C++ compiler the native core is left out and the reference takes over.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
SOURCES := $(shell find src csrc -type f -not -name '*.pyc') pyproject.toml CMakeLists.txt constraints.txt

.PHONY: demo test parity lint sanitize clean

demo: $(VENV)/.stamp-run
	$(VENV)/bin/linocut demo

test: $(VENV)/.stamp-test
	OMP_WAIT_POLICY=PASSIVE $(VENV)/bin/python -m pytest

# Ours beside independent implementations, in a group of tests with an extra of its own.
parity: $(VENV)/.stamp-parity
	OMP_WAIT_POLICY=PASSIVE $(VENV)/bin/python -m pytest tests/parity

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

$(VENV)/.stamp-parity: $(VENV)/.stamp-venv $(SOURCES)
	$(PIP) install --quiet --constraint constraints.txt '.[test,train,parity]'
	touch $@ $(VENV)/.stamp-test $(VENV)/.stamp-run

$(VENV)/.stamp-lint: $(VENV)/.stamp-test
	$(PIP) install --quiet --constraint constraints.txt '.[lint]'
	touch $@

# The kernels' tests once with the address and undefined-behaviour sanitizers, in a build of their own. Python itself is
# not instrumented, so the runtime is loaded first, and its leaks are not ours.
sanitize: $(VENV)/.stamp-test
	$(PIP) install --quiet --constraint constraints.txt nanobind cmake ninja
	$(VENV)/bin/cmake -G Ninja -S . -B build/sanitize -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	  -DLINOCUT_SANITIZE=address,undefined -DPython_EXECUTABLE=$(CURDIR)/$(VENV)/bin/python \
	  -Dnanobind_DIR=$$($(VENV)/bin/python -m nanobind --cmake_dir) -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(VENV)/bin/ninja
	$(VENV)/bin/cmake --build build/sanitize
	mkdir -p build/sanitized && cp -r src/linocut build/sanitized/ && cp build/sanitize/*.so build/sanitized/linocut/
	PYTHONPATH=build/sanitized ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	  LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) $$($${CXX:-c++} -print-file-name=libubsan.so)" \
	  OMP_WAIT_POLICY=PASSIVE $(VENV)/bin/python -m pytest tests/ops tests/data/test_rle.py \
	  tests/metrics/test_confusion.py tests/metrics/test_contingency.py tests/metrics/test_runs.py -m 'not slow'
