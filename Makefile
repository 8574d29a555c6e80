# A newcomer needs two of these: `make demo` and `make test`. Both make .venv and install into it.
# CMAKE_ARGS reaches every build of the kernels: make test CMAKE_ARGS=-DBRAINJAX_CUDA=OFF

.PHONY: demo test test-slow test-matrix sanitize-cpu lint develop clean
.PHONY: install-gpu test-gpu bench-gpu sanitize-gpu
.NOTPARALLEL: # one pip at a time
export PIP_DISABLE_PIP_VERSION_CHECK := 1

VENV := .venv
BIN := $(VENV)/bin
# A process for each core, and whole files for each: the tests of a file share compiled programs.
PYTEST := $(BIN)/pytest -n auto --dist loadfile
MATRIX := .matrix
REPORTS := build/reports

# The first of these that brainjax supports; PYTHON=/path/to/python overrides.
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
ifndef PYTHON
PYTHON := $(firstword $(foreach python,python3 python3.13 python3.12 python3.11,\
  $(shell $(python) -c '$(SUPPORTED)' 2>/dev/null && echo $(python))))
endif

# What an install depends on; the folders are in it because a deleted file changes nothing else.
SOURCES := pyproject.toml $(shell find brainjax custom_calls experiments benchmarks \
  ! -path '*/__pycache__*' ! -name '*.so' ! -name build_info.json 2>/dev/null)

demo: $(VENV)/.demo
	$(BIN)/brainjax demo --out demo

test: $(VENV)/.test
	$(PYTEST)

test-slow: $(VENV)/.test
	$(PYTEST) -m "slow and not gpu"

# The files whose tests call kernels, on the CPU too.
TESTS ?= $(shell grep -l mark.gpu tests/test_*.py)

# The CPU kernels, built apart with GCC's checks of addresses and of undefined behaviour; Python and
# XLA are as they are, and leak. One test asks for more memory than there is.
SANITIZED := build/sanitized
SANITIZER_LOG := $(CURDIR)/$(REPORTS)/sanitizer
LIBRARY_OF_GCC = $(shell $(CXX) -print-file-name=$(1).so)
sanitize-cpu: $(VENV)/.test
	CMAKE_ARGS="$(CMAKE_ARGS) -DBRAINJAX_CUDA=OFF" \
	CXXFLAGS="-fsanitize=address,undefined -fno-sanitize-recover=undefined -g1" \
	  $(BIN)/pip install --quiet --no-deps --upgrade --target $(SANITIZED) \
	  --config-settings=install.strip=false .
	@mkdir -p $(REPORTS) && rm -f $(SANITIZER_LOG).*
	PYTHONPATH=$(SANITIZED) \
	LD_PRELOAD="$(call LIBRARY_OF_GCC,libasan) $(call LIBRARY_OF_GCC,libubsan)" \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:log_path=$(SANITIZER_LOG) \
	UBSAN_OPTIONS=print_stacktrace=1:log_path=$(SANITIZER_LOG) \
	  $(PYTEST) --max-worker-restart=0 -m "not slow and not gpu and not unsanitized" $(TESTS) || \
	  { cat $(SANITIZER_LOG).* 2>/dev/null; exit 1; }

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --project pyproject.toml

# In the environment that is there, with nothing downloaded: GPU machines bring their own JAX.
# -P keeps the checkout, which has no kernels in it, from hiding the installed package.
install-gpu:
	$(PYTHON) -m pip install --no-build-isolation --no-deps --no-index \
	  --config-settings=cmake.define.BRAINJAX_CUDA=ON .

# WORKERS=12: so many processes share the GPU.
ifdef WORKERS
test-gpu: export XLA_PYTHON_CLIENT_PREALLOCATE := false
endif
test-gpu: install-gpu
	$(PYTHON) -P -m pytest -m "gpu and not large" $(if $(WORKERS),-n $(WORKERS))
	$(PYTHON) -P -m pytest -m "gpu and large"

# COLUMNS is the width of the table, as nobody may be looking.
bench-gpu: install-gpu
	COLUMNS=180 $(PYTHON) -P -m brainjax.cli bench ops --json $(REPORTS)/ops.json

# Each array is an allocation of its own, so that a step outside is seen. Kernels of XLA are watched
# too, as initcheck must see who wrote what; none in command buffers, where no tool looks. A process
# for each file: the tools keep freed memory, and an end with one of XLA's kernels ends them all.
# TESTS=tests/test_selection.py TOOLS="memcheck racecheck" restrict what is run, WORKERS=12 runs so
# many files at a time. Now and then the tool itself fails (its launcher, or "failure to track a
# kernel launch"): the log says so, and a second run of that file decides.
SANITIZER ?= $(or $(shell command -v compute-sanitizer),/usr/local/cuda/bin/compute-sanitizer)
TOOLS ?= memcheck racecheck synccheck initcheck
sanitize-gpu: export XLA_PYTHON_CLIENT_ALLOCATOR := platform
sanitize-gpu: export XLA_PYTHON_CLIENT_PREALLOCATE := false
sanitize-gpu: export XLA_FLAGS := --xla_gpu_enable_command_buffer=
sanitize-gpu: install-gpu
	@mkdir -p $(REPORTS)
	$(call sanitize,gpu and not large and not unsanitized,$(TESTS),$(or $(WORKERS),1))
	$(call sanitize,large and gpu and not unsanitized,$(shell grep -l mark.large $(TESTS)),1)

# Tests with these marks, whose first word names the log, in these files, so many at a time.
define sanitize
@printf "%s\n" $(foreach tool,$(TOOLS),$(patsubst %,$(tool):%,$(2))) | \
	xargs -r -P $(3) -n 1 sh -c ' \
	  tool=$${1%%:*} tests=$${1#*:}; \
	  log=$(REPORTS)/$$tool-$$(basename $$tests .py)-$(firstword $(1)).txt; \
	  test $$tool != initcheck || options="--check-api-memory-access no"; \
	  if $(SANITIZER) --tool $$tool $$options --report-api-errors no --error-exitcode 9 \
	    $(PYTHON) -P -m pytest -m "$(1)" $$tests >$$log 2>&1; \
	  then echo "$$tool $$tests: no errors"; \
	  else echo "$$tool $$tests: FAILED, see $$log:" \
	    $$(grep -aE "SUMMARY|(passed|failed|error).* in " $$log); exit 1; \
	  fi' job
endef

# One wheel, installed beside the oldest and the newest supported JAX.
PYTHON311 ?= python3.11
PYTHON312 ?= python3.12
PYTHON313 ?= python3.13
test-matrix: | $(BIN)/pip
	rm -rf $(MATRIX)
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir $(MATRIX) .
	@newest=no; \
	for row in "$(PYTHON311) jax==0.10.2" "$(PYTHON312) jax" "$(PYTHON313) jax"; do \
	  set -- $$row; venv=$(MATRIX)/$$(basename $$1); \
	  "$$1" -c '$(SUPPORTED)' 2>/dev/null || { echo "SKIPPED: there is no $$1" >&2; continue; }; \
	  echo "== $$1, $$2"; \
	  "$$1" -m venv $$venv && \
	  $$venv/bin/pip install --quiet "$$2" "$$(ls $(MATRIX)/*.whl)[test]" && \
	  $$venv/bin/brainjax info && \
	  $$venv/bin/pytest || exit 1; \
	  test $$2 != jax || newest=yes; \
	done; \
	test $$newest = yes || \
	  { echo "nothing ran with the newest JAX: set PYTHON312 or PYTHON313" >&2; exit 1; }

# Builds into the checkout, and only what changed. `.venv/bin/python -m pytest` then tests the
# checkout, because -m looks here first; `.venv/bin/pytest` tests what is installed.
develop: $(VENV)/.test
	$(BIN)/pip install --quiet cmake
	$(BIN)/cmake -S custom_calls -B build -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python $(CMAKE_ARGS)
	$(BIN)/cmake --build build
	$(BIN)/cmake --install build --prefix .

clean:
	rm -rf $(VENV) $(MATRIX) build dist demo brainjax/ops/*.so brainjax/ops/build_info.json
	rm -rf .pytest_cache .ruff_cache .hypothesis

$(BIN)/pip:
	@test -n "$(PYTHON)" || \
	  { echo "no Python 3.11, 3.12 or 3.13 found: set PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps say when the package was last installed, and with which extras; test includes demo's.
# CUDA kernels take minutes to compile, and without a GPU a demo has no use for them.
$(VENV)/.demo: EXTRAS := plot,data
$(VENV)/.demo: export CMAKE_ARGS += $(shell nvidia-smi -L >/dev/null 2>&1 || echo -DBRAINJAX_CUDA=OFF)
$(VENV)/.test: EXTRAS := test
$(VENV)/.demo $(VENV)/.test: $(SOURCES) | $(BIN)/pip
	@echo "Building brainjax and installing it into $(VENV): minutes the first time, seconds later."
	$(BIN)/pip install --quiet '.[$(EXTRAS)]'
	@$(BIN)/brainjax info
	@touch $@ $(if $(filter test,$(EXTRAS)),$(VENV)/.demo)
