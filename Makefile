# A thin front for meson: every target is one or two commands that can be typed by hand as well.
# "make help" lists them; variables are given on the command line: make run ARGS="--slots 4".

BUILD  ?= build
ASAN   ?= build-asan
FUZZ   ?= build-fuzz
PYTHON ?= /usr/bin/python3
PREFIX ?= /usr/local

# make run: arguments for "kiln serve".  make bench: arguments for bench/run.py.
# make test-e2e: arguments for pytest.
ARGS ?=
# make census: how many tasks.
TASKS ?= 10000
# make fuzz: seconds for each target.
SECONDS_EACH ?= 300

MESON_RELEASE = --buildtype=release
MESON_ASAN    = --werror --buildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false
MESON_FUZZ    = --werror --buildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false -Dfuzz=true \
	-Dc_args=-fsanitize=fuzzer-no-link

.DEFAULT_GOAL := help
.PHONY: help deps run build build-asan build-fuzz test test-quick test-e2e test-stack test-chaos test-hostile test-cluster test-vm images census chaos stack stack-down bench pool-sim fuzz check \
	reports format install clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

run: ## install what is missing, build, start a server on 127.0.0.1:8080
	@tools/install-deps.sh build languages
	@$(MAKE) --no-print-directory build
	@exec $(BUILD)/kiln serve $(ARGS)

deps: ## install everything that building, running and testing need
	tools/install-deps.sh build languages more-languages test stack cluster images

build: $(BUILD)/build.ninja ## build/kiln, build/kiln-runner, build/kiln-sandbox (release)
	@ninja -C $(BUILD)

build-asan: $(ASAN)/build.ninja ## the same with address and undefined behaviour sanitizers
	@ninja -C $(ASAN)

build-fuzz: $(FUZZ)/build.ninja ## the fuzz targets (clang)
	@ninja -C $(FUZZ)

$(BUILD)/build.ninja:
	@tools/install-deps.sh build
	meson setup $(BUILD) $(MESON_RELEASE)

$(ASAN)/build.ninja:
	@tools/install-deps.sh build test
	meson setup $(ASAN) $(MESON_ASAN)

$(FUZZ)/build.ninja:
	@tools/install-deps.sh build test
	CC=clang meson setup $(FUZZ) $(MESON_FUZZ)

test: ## everything that CI runs; the last line is the sum
	@tools/install-deps.sh build languages more-languages test stack cluster images
	@$(PYTHON) tools/test.py all

test-quick: ## unit, sandbox and integration tests on the sanitized build
	@tools/install-deps.sh build test
	@$(PYTHON) tools/test.py quick

test-e2e: build ## end-to-end tests on the release build; ARGS="-k cancel"
	KILN_BUILD=$(BUILD) $(PYTHON) -m pytest tests/e2e $(ARGS)

stack: ## PostgreSQL, RabbitMQ and Redis on loopback, for tests: installs, starts, prints their URLs
	@tools/stack.sh up

stack-down: ## stops exactly those
	@tools/stack.sh down

test-stack: ## the tests that need the stack: brings it up, runs them, takes it down
	@$(PYTHON) tools/test.py stack

test-chaos: ## a load while parts are killed, stopped and cut off: nothing accepted is lost
	@$(PYTHON) tools/test.py chaos

test-cluster: build ## Kiln on a Kubernetes of one node, which is built (once) and started here; ARGS=--short
	@$(PYTHON) tools/test.py cluster $(ARGS)

test-hostile: ## programs that attack, bomb and flood, beside ordinary ones: nothing gets out or is left
	@$(PYTHON) tools/test.py hostile

test-vm: build ## the sandbox and forks on cgroup v2 with all controllers, in a virtual machine; minutes
	@tools/install-deps.sh vm
	meson test -C $(BUILD) --no-rebuild --suite vm --print-errorlogs

images: ## container images, with buildah; ARGS="python" one and what it needs (deploy/images/build.sh --help)
	@tools/install-deps.sh images
	@deploy/images/build.sh $(ARGS)

census: build ## ten thousand tasks that leave things behind, and what is left of them; TASKS=100000
	KILN_BUILD=$(BUILD) KILN_HOSTILE_TASKS=$(TASKS) $(PYTHON) -B -m pytest -s -p no:cacheprovider \
		tests/hostile/test_census.py $(ARGS)

chaos: build ## the same in random order for ten minutes: make chaos ARGS="--minutes 60 --seed 1"
	@eval "$$(tools/stack.sh up)" && KILN_BUILD=$(BUILD) $(PYTHON) tests/chaos/chaos.py $(ARGS)

bench: build ## latency, throughput and cost, beside the bare floor of this machine
	@$(PYTHON) bench/run.py --build $(BUILD) $(ARGS)

pool-sim: build ## pool sizes: Kiln's policy beside others in simulated time; ARGS="--scenario burst"
	@$(BUILD)/bench/pool-sim $(ARGS)

fuzz: build-fuzz ## every fuzz target for SECONDS_EACH
	@$(PYTHON) tools/test.py fuzz --seconds $(SECONDS_EACH)

check: $(FUZZ)/build.ninja ## formatting, banned functions, header boundaries, clang-tidy
	@$(PYTHON) tools/test.py check

reports: build-asan build-fuzz ## gcc's and clang's analyzers and cppcheck; never fails
	@$(PYTHON) tools/test.py reports

format: ## clang-format on all sources
	git ls-files '*.c' '*.h' | xargs clang-format -i

install: build ## programs, languages and the systemd unit below PREFIX
	meson install -C $(BUILD) --no-rebuild

clean: ## remove the build directories
	rm -rf $(BUILD) $(ASAN) $(FUZZ)
