# SPDX-License-Identifier: MIT
# The front door: each target says in one line (make help) what it does; the work is Meson's and tools/'s.
# BUILD names the build directories (BUILD, BUILD-test, BUILD-clang, ...), so that two people in one tree keep apart.
BUILD  ?= build
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 30
TORTURE_SECONDS ?= 240
# Warnings are errors in CI, where the compiler is known; WERROR=true asks for it anywhere.
WERROR ?= $(if $(CI),true,false)

# All assertions and fault points, the extension included.
configure_tests = tools/install-deps test && tools/venv test && tools/configure $(BUILD)-test --native-file=.venv/meson.ini \
	-Dpython=true -Dtests=true -Dcheck=3 -Dfault_points=true -Dwerror=$(WERROR)

# As released: no assertions, -O3; the peers that can be installed here.
prepare_bench = tools/install-deps bench && tools/venv && tools/venv-peers && tools/configure $(BUILD)-bench --native-file=.venv/meson.ini \
	-Dpython=true -Dbench=true -Dbuildtype=release && ninja --quiet -C $(BUILD)-bench && tools/link-python $(BUILD)-bench/python $(BUILD)-bench

.DEFAULT_GOAL := build
.PHONY: build test conformance demo lint format stepkill models torture torture-peers bench bench-quick bench-report sanitize fuzz install clean help

build: ## build/libbrood.so, build/libbrood.a, the examples, and .venv, in which `import brood` works
	@tools/install-deps build
	@tools/venv
	@tools/configure $(BUILD) --native-file=.venv/meson.ini -Dpython=true -Dtests=false -Dprefix=$(abspath $(PREFIX)) -Dlibdir=lib
	@ninja --quiet -C $(BUILD)
	@tools/link-python "$$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')" $(BUILD)

test: ## builds with all assertions and fault points, runs every test, some 8 minutes; last line: N passed, N failed
	@$(configure_tests)
	@tools/run-tests --build $(BUILD)-test

conformance: build ## CPython's own tests of multiprocessing and joblib's, on brood, beside the standard library's figures, some 12 minutes
	@tools/install-deps test
	@tools/venv test
	@status=0; tests/conformance/run || status=1; tests/conformance/joblib || status=1; exit $$status

demo: build ## the tutorial programs, queues that C and Python share, checksums of /usr/include, a picture
	@tools/demo --build $(BUILD)

lint: ## clang-format, clang-tidy, the order of the layers, a clang build without warnings
	@tools/install-deps lint
	@tools/lint --build $(BUILD)-clang

format: ## rewrites the C files as clang-format wants them
	@tools/install-deps lint
	@tools/lint --fix

stepkill: ## kills every operation after every instruction that others can notice (a part of make test)
	@$(configure_tests)
	@ninja --quiet -C $(BUILD)-test tests/stepkill
	@$(BUILD)-test/tests/stepkill

models: ## every run and every mutation of the Spin models, some minutes (make test checks the first run of each)
	@tools/install-deps test
	@tests/models/run

torture: ## the fault campaign: kills, stops, crashes, time-outs, limits, full memory, in C and Python, each for TORTURE_SECONDS (240), so less than 10 minutes
	@$(configure_tests)
	@ninja --quiet -C $(BUILD)-test
	@tests/torture/run --build $(BUILD)-test --seconds $(TORTURE_SECONDS)

torture-peers: build ## the same faults for multiprocessing, concurrent.futures, loky, pebble, mpire: the table of docs/FAULTS.md
	@tests/torture/peers/run --build $(BUILD)

bench: ## brood beside everybody else: every question of bench/questions.toml, then the report in docs/benchmarks (BENCH_FLAGS: for bench/run)
	@$(prepare_bench)
	@bench/run --build $(BUILD)-bench $(BENCH_FLAGS)
	@.venv-peers/bin/python bench/plot $(BUILD)-bench/latest.json

bench-quick: ## the same with fewer rounds and smaller samples, no report
	@$(prepare_bench)
	@bench/run --build $(BUILD)-bench --quick $(BENCH_FLAGS)

bench-report: ## table and plots of docs/benchmarks anew, from the last make bench
	@tools/venv-peers
	@.venv-peers/bin/python bench/plot $(BUILD)-bench/latest.json

sanitize: ## most tests under ASan and UBSan, the protocols among threads under TSan, unit tests under valgrind; some 10 minutes
	@tools/install-deps sanitize
	@tools/venv test
	@tools/sanitize $(BUILD)

fuzz: ## every target of tests/fuzz for FUZZ_SECONDS (30)
	@tools/install-deps fuzz
	@tools/fuzz $(FUZZ_SECONDS) $(BUILD)-fuzz

install: build ## into PREFIX (/usr/local), below DESTDIR if that is set; ldconfig, if root installs where the loader looks
	@meson install -C $(BUILD) --no-rebuild --quiet --tags devel,runtime,man $(if $(DESTDIR),--destdir $(abspath $(DESTDIR)))
	@case "$(DESTDIR)$(abspath $(PREFIX))" in /usr|/usr/local) [ "$$(id -u)" -ne 0 ] || ldconfig ;; esac

clean: ## removes the build directories and .venv
	rm -rf $(BUILD) $(BUILD)-test $(BUILD)-clang $(BUILD)-asan $(BUILD)-tsan $(BUILD)-valgrind $(BUILD)-fuzz $(BUILD)-bench .venv .venv-peers

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22
