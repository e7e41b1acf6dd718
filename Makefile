# `make chat` and `make test` do all the set-up themselves: Linux, Python 3.11 or later, gcc and make are enough.
# PYTHON chooses the interpreter (make test PYTHON=python3.13), VENV where its packages go, ARGS goes to what is run.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
# cython-lint calls pycodestyle by its name.
export PATH := $(abspath $(BIN)):$(PATH)

SOURCES := $(shell find wsev/_core -name '*.pyx' -o -name '*.pxd' -o -name '*.[ch]')
# Stamps lie in the virtual environment, so that a new one starts from nothing.
TOOLS := $(VENV)/.tools
CORE := $(VENV)/.core
READY := $(VENV)/.ready

.PHONY: help build chat test lint format autobahn sanitize soak annotate docs clean bench bench-compare fuzz hostile
.DEFAULT_GOAL := help

help:
	@echo "make chat       the chat room, on http://127.0.0.1:8000; another port: ARGS='--port 9000'"
	@echo "make test       the tests; ARGS goes to pytest, as in ARGS='-k close'"
	@echo "make lint       format, style, types, stubs"
	@echo "make format     what lint would complain about, where a tool can mend it"
	@echo "make autobahn   the Autobahn testsuite, all of it, and its table; installs it first (needs a Python 2.7)"
	@echo "make sanitize   the tests on a build with AddressSanitizer and UndefinedBehaviorSanitizer"
	@echo "make hostile    what attacks come to, and what they cost the server and others: a table"
	@echo "make fuzz       random bytes against other parsers, and the C parts under libFuzzer (clang); a minute each"
	@echo "make soak       memory after very many connections: 20,000 a test, or as many as WSEV_SOAK says"
	@echo "make annotate   Cython's HTML: what of the core is still Python"
	@echo "make docs       the documentation, into docs/_build/html"
	@echo "make build      the core, in place; the others do it too, when a source has changed"
	@echo "make bench      CPU time, throughput, latency, memory, beside the peers; ARGS='--scenarios all'"
	@echo "make bench-compare ARGS=COMMIT   the same against another commit"
	@echo "make clean      away with everything that was built"

build: $(READY)

chat: build
	$(BIN)/python examples/chat.py $(ARGS)

test: build
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=8 --dist=loadfile $(ARGS)

lint: build
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/cython-lint wsev
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest wsev --concise --ignore-disjoint-bases --allowlist tests/typing/stubtest.txt

format: build
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# About an hour; ARGS="-k 'shared and uvloop'" is a part of it.
autobahn: build
	WSEV_AUTOBAHN=all WSTEST="$$(.ci/wstest)" \
	    $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile -m autobahn $(ARGS)
	$(BIN)/python -m tests.conformance.table --write

# A build of its own beside the ordinary one; PYTHONSAFEPATH, so that a program that a test starts imports it, too.
# A report ends the process.  It comes to the terminal, hence --capture=sys, and leaves a file, which fails the run even
# where the process was a child that nobody missed.  libubsan is first because only then both write that file.
# Sanitizers make everything slower, hence the longer limit a test.
SANITIZED := $(CURDIR)/build/sanitize/lib
REPORT := $(CURDIR)/build/sanitize/report
SANITIZER_OPTIONS := log_path=$(REPORT):print_stacktrace=1:detect_leaks=0:detect_stack_use_after_return=1
sanitize: build
	WSEV_SANITIZE=1 $(BIN)/python setup.py -q build --build-base=build/sanitize --build-lib=$(SANITIZED)
	rm -f $(REPORT).*
	WSEV_SANITIZE=1 PYTHONSAFEPATH=1 PYTHONPATH=$(SANITIZED):$(CURDIR) MYPYPATH=$(SANITIZED) PYTHONMALLOC=malloc \
	LD_PRELOAD="$$(gcc -print-file-name=libubsan.so) $$(gcc -print-file-name=libasan.so)" \
	ASAN_OPTIONS=$(SANITIZER_OPTIONS):verify_asan_link_order=0 UBSAN_OPTIONS=$(SANITIZER_OPTIONS) \
	$(BIN)/python -m pytest -o pythonpath="$(SANITIZED) $(CURDIR)" --timeout=120 --capture=sys \
	    --numprocesses=auto --maxprocesses=8 --dist=loadfile \
	    -m 'not autobahn and not browser and not soak' $(ARGS); \
	status=$$?; ! cat $(REPORT).* 2>/dev/null && exit $$status

# As in: make hostile ARGS=bombs
hostile: build
	$(BIN)/python -m tests.hostile $(ARGS)

# As in: make fuzz ARGS='frames --seconds 600'
fuzz: build
	$(BIN)/python -m tests.fuzz $(ARGS)

soak: build
	$(BIN)/python -m pytest -m soak --capture=no $(ARGS)

# The peers live in an environment of their own.  As in: make bench ARGS='--scenarios all --preset quick'
BENCH := build/bench/venv
bench: build $(BENCH)/.complete
	$(BENCH)/bin/python -m benchmarks run $(ARGS)

# As in: make bench-compare ARGS='main', ARGS='v0.1.0 main --scenarios all'
bench-compare: $(BENCH)/.complete
	$(BENCH)/bin/python -m benchmarks compare $(ARGS)

$(BENCH)/.complete: pyproject.toml
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install -q --upgrade 'pip>=25.1'
	$(BENCH)/bin/python -m pip install -q --group bench
	touch $@

annotate: build
	WSEV_ANNOTATE=1 $(BIN)/python setup.py -q build_ext --build-lib=build/annotate --build-temp=build/annotate --force
	@ls build/annotate/cython/wsev/_core/*.html

docs: $(VENV)/.docs build
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo docs/_build/html/index.html

clean:
	rm -rf build dist *.egg-info docs/_build $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find wsev -name '*.so' -delete

$(TOOLS): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install -q --group build --group test --group lint
	touch $@

$(CORE): $(TOOLS) $(SOURCES) setup.py
	$(BIN)/python setup.py -q build_ext --inplace
	touch $@

# What this adds to the core is the dependencies and the import path.
$(READY): $(CORE) pyproject.toml
	test $@ -nt pyproject.toml || WSEV_CORE=built $(BIN)/python -m pip install -q --no-build-isolation -e '.[asgi]'
	touch $@

$(VENV)/.docs: $(TOOLS)
	$(BIN)/python -m pip install -q --group docs
	touch $@
