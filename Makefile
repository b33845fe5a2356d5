# SPDX-License-Identifier: MIT
# The front door: each target says in one line (make help) what it does; the work is Meson's and tools/'s.
# BUILD names the build directories (BUILD, BUILD-test, BUILD-clang, ...), so that two people in one tree keep apart.
BUILD  ?= build
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 30
# Warnings are errors in CI, where the compiler is known; WERROR=true asks for it anywhere.
WERROR ?= $(if $(CI),true,false)

.DEFAULT_GOAL := build
.PHONY: build test demo lint format stepkill stress sanitize fuzz install clean help

build: ## the library: build/libbrood.so, build/libbrood.a and the examples
	@tools/install-deps build
	@tools/configure $(BUILD) -Dtests=false -Dprefix=$(abspath $(PREFIX)) -Dlibdir=lib
	@ninja --quiet -C $(BUILD)

test: ## builds with all assertions and fault points, runs every test; last line: N passed, N failed
	@tools/install-deps test
	@tools/configure $(BUILD)-test -Dtests=true -Dcheck=3 -Dfault_points=true -Dwerror=$(WERROR)
	@tools/run-tests --build $(BUILD)-test

demo: build ## the tutorial programs, checksums of /usr/include, a picture
	@tools/demo --build $(BUILD)

lint: ## clang-format, clang-tidy, the order of the layers, a clang build without warnings
	@tools/install-deps lint
	@tools/lint --build $(BUILD)-clang

format: ## rewrites the C files as clang-format wants them
	@tools/install-deps lint
	@tools/lint --fix

stepkill: ## kills every operation after every instruction that others can notice, none left out (make test samples the longest)
	@tools/install-deps test
	@tools/configure $(BUILD)-test -Dtests=true -Dcheck=3 -Dfault_points=true -Dwerror=$(WERROR)
	@ninja --quiet -C $(BUILD)-test tests/stepkill
	@$(BUILD)-test/tests/stepkill --all

stress: ## every stress program, with a new seed each
	@tools/install-deps test
	@tools/configure $(BUILD)-test -Dtests=true -Dcheck=3 -Dfault_points=true -Dwerror=$(WERROR)
	@ninja --quiet -C $(BUILD)-test
	@for program in $(BUILD)-test/tests/stress_*; do case $$program in *.p) ;; *) $$program || exit 1;; esac; done

sanitize: ## unit tests under ASan and UBSan, TSan, valgrind
	@tools/install-deps sanitize
	@tools/sanitize $(BUILD)

fuzz: ## every target of tests/fuzz for FUZZ_SECONDS (30)
	@tools/install-deps fuzz
	@tools/fuzz $(FUZZ_SECONDS) $(BUILD)-fuzz

install: build ## into PREFIX (/usr/local), below DESTDIR if that is set
	@meson install -C $(BUILD) --no-rebuild $(if $(DESTDIR),--destdir $(abspath $(DESTDIR)))
	@if [ -z "$(DESTDIR)" ] && [ "$$(id -u)" -eq 0 ]; then ldconfig; fi

clean: ## removes the build directories
	rm -rf $(BUILD) $(BUILD)-test $(BUILD)-clang $(BUILD)-asan $(BUILD)-tsan $(BUILD)-fuzz

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18
