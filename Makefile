# make test    everything that must hold: style, types, Python tests, C++ tests
# make demo    photos and sounds to token files and back, with a report
# make clean   removes what was built (not .venv)

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/vqtok-installed
NATIVE := $(shell find csrc -name tests -prune -o -type f -print)

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: test lint types python-tests native-tests cuda-races cuda-gates cuda-mutants aarch64-tests fuzz demo clean

test: lint types python-tests native-tests cuda-races cuda-gates aarch64-tests

lint: $(READY)
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

python-tests: $(READY)
	$(BIN)/pytest

# The library under the address and undefined-behaviour sanitizers, CUDA emulated on the CPU.
native-tests: $(READY)
	$(BIN)/cmake -G Ninja -S csrc -B build/native-tests -DVQTOK_TESTS=ON \
		-DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja
	$(BIN)/cmake --build build/native-tests
	$(BIN)/ctest --test-dir build/native-tests --output-on-failure -j 2

# An hour of damaged streams for the entropy decoders, under the sanitizers; other seeds each time.
# Not part of `make test`, which does a second's worth.
FUZZ_SECONDS := 3600
fuzz: $(READY)
	$(BIN)/cmake -G Ninja -S csrc -B build/native-tests -DVQTOK_TESTS=ON \
		-DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja
	$(BIN)/cmake --build build/native-tests --target test_entropy
	@end=$$(( $$(date +%s) + $(FUZZ_SECONDS) )); while [ $$(date +%s) -lt $$end ]; do \
		seed=$$(date +%s%N); echo "test_entropy $$seed 400"; \
		ASAN_OPTIONS=detect_leaks=0 build/native-tests/tests/test_entropy $$seed 400 || exit 1; \
	done

# The emulated CUDA kernels under the thread sanitizer.
cuda-races: $(READY)
	$(BIN)/cmake -G Ninja -S csrc -B build/cuda-races -DVQTOK_TESTS=ON -DVQTOK_SANITIZERS=thread \
		-DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja
	$(BIN)/cmake --build build/cuda-races --target test_cuda_emulator
	$(BIN)/ctest --test-dir build/cuda-races --output-on-failure

# What nvcc makes of the CUDA kernels: spills, registers, machine code.
cuda-gates: $(READY)
	$(BIN)/python csrc/tests/cuda_gates.py build/cuda-gates

# Whether the tests notice mistakes in the CUDA kernels. Takes minutes; not part of `make test`.
cuda-mutants: $(READY)
	$(BIN)/python csrc/tests/cuda_mutants.py build/cuda-mutants

# The native tests for aarch64 (NEON), cross-compiled and run by qemu. Debian has both:
# apt-get install g++-aarch64-linux-gnu qemu-user
AARCH64_CXX := aarch64-linux-gnu-g++
QEMU := qemu-aarch64
aarch64-tests: $(READY)
	@if ! command -v $(AARCH64_CXX) > /dev/null || ! command -v $(QEMU) > /dev/null; then \
		echo "aarch64-tests: SKIPPED, $(AARCH64_CXX) and $(QEMU) are not both here" \
			"(apt-get install g++-aarch64-linux-gnu qemu-user)"; \
	else \
		$(BIN)/cmake -G Ninja -S csrc -B build/aarch64-tests -DVQTOK_TESTS=ON -DVQTOK_SANITIZERS= \
			-DCMAKE_BUILD_TYPE=Release -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
			-DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
			-DCMAKE_CXX_COMPILER=$(AARCH64_CXX) \
			"-DCMAKE_CROSSCOMPILING_EMULATOR=$(QEMU);-L;/usr/aarch64-linux-gnu" && \
		$(BIN)/cmake --build build/aarch64-tests && \
		$(BIN)/ctest --test-dir build/aarch64-tests --output-on-failure -j 2; \
	fi

demo: $(READY)
	$(BIN)/python scripts/demo.py

# torch goes first and alone, so that nothing else decides which one is installed. litdata and
# mosaicml-streaming ask for another numpy, transformers and torchvision, and for four clouds; the
# tests read exported datasets with them, which needs none of these. Of published image models they
# use layers alone, without what trains them.
$(READY): constraints.txt pyproject.toml setup.py $(NATIVE)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet -c constraints.txt --no-deps litdata mosaicml-streaming lpips \
		taming-transformers-rom1504 open-magvit2 openimagetokenizer
	touch $@

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis $(READY)
	rm -f vqtok/ops/_native*.so
	find vqtok tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
