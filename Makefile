# The one front door: `make help` lists what there is. CI runs these targets and nothing else.
#
# All that is built, downloaded or written by tests lies in $(FOREBAY_CACHE), outside the working copy.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Cargo uses all processors by itself.
.NOTPARALLEL:

export FOREBAY_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/forebay
export CARGO_TARGET_DIR ?= $(FOREBAY_CACHE)/target
# Where examples and end-to-end tests find the program.
export FOREBAY_BIN := $(CARGO_TARGET_DIR)/release/forebay

# Cargo takes what was built after a file was last written as built from it, in whatever working copy. With one target folder for all of
# them, what another copy has built would be run, and would look for its files there. So whoever comes from another copy has all built anew.
ifneq ($(shell cat $(CARGO_TARGET_DIR)/working-copy 2>&1),$(CURDIR))
$(shell mkdir -p $(CARGO_TARGET_DIR) && find . -name '*.rs' -exec touch {} + && echo $(CURDIR) > $(CARGO_TARGET_DIR)/working-copy)
endif

# One profile and one selection of packages for every call: features are resolved for the whole selection, so with -p or
# --exclude the C and C++ libraries would be compiled once more. What to run is selected by target instead.
CARGO_FLAGS := --workspace --release --locked

# Which test targets need servers: all of e2e/, and in the other crates those that are called real_*. A name is looked for
# in every crate, so one must not stand for a test of either sort.
CRATES := $(patsubst %/Cargo.toml,%,$(wildcard */Cargo.toml */*/Cargo.toml */*/*/Cargo.toml))
test_files = $(foreach crate,$(1),$(wildcard $(crate)/tests/*.rs $(crate)/tests/*/main.rs))
test_targets = $(sort $(basename $(notdir $(patsubst %/main.rs,%.rs,$(call test_files,$(1))))))
UNIT_TESTS := $(filter-out real_%,$(call test_targets,$(filter-out e2e,$(CRATES))))
SIM_TESTS := $(call test_targets,worker/sim)
# They need a cluster besides, and `make e2e-kubernetes`.
CLUSTER_TESTS := $(filter kubernetes%,$(call test_targets,e2e))
SERVER_TESTS := $(filter real_%,$(call test_targets,$(CRATES))) $(filter-out real_% kubernetes%,$(call test_targets,e2e))
# The longest go first.
LONG_TESTS := outages three_brokers losses owners permissions flights_on_servers preflight unknown_commit kills memory real_broker
SERVER_TESTS := $(filter $(SERVER_TESTS),$(LONG_TESTS)) $(filter-out $(LONG_TESTS),$(SERVER_TESTS))
ifneq ($(filter $(UNIT_TESTS),$(SERVER_TESTS)),)
$(error a test in e2e/tests has the name of one that needs no servers: $(filter $(UNIT_TESTS),$(SERVER_TESTS)))
endif

STACK := e2e/stack/stack
KUBERNETES := e2e/stack/kubernetes/kubernetes

.PHONY: help
help: ## list the targets
	@sed -nE -e 's/^##@ /\n/p' -e 's/^([a-z0-9-]+):[^#]*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

##@ Use

.PHONY: run
run: bootstrap-build build ## build, and run the flights example: a year of flights through a job, no broker needed (ARGS=...)
	examples/flights/run.sh $(ARGS)

.PHONY: test
test: bootstrap build ## build and run all tests: unit, simulation, end to end on real servers
	cargo test $(CARGO_FLAGS) --lib --bins $(UNIT_TESTS:%=--test %) $(SERVER_TESTS:%=--test %) --no-run
# Unit tests and simulations take what processor time the others leave.
	$(STACK) with kafka s3 -- $(SIDE_BY_SIDE) --jobs=5 unit sim $(SERVER_TESTS)

.PHONY: bootstrap
bootstrap: ## install the system packages that building and testing need, if any are missing
	@scripts/bootstrap.sh test

.PHONY: bootstrap-build
bootstrap-build:
	@scripts/bootstrap.sh build

.PHONY: bootstrap-bench
bootstrap-bench:
	@scripts/bootstrap.sh bench

.PHONY: build
build: ## build the programs
# With --examples, because only then features are resolved as they are for tests.
	cargo build $(CARGO_FLAGS) --bins --examples

.PHONY: dist
dist: bootstrap-build ## build the programs as images have them: faster, and everything is compiled anew (half an hour)
	cargo build --workspace --profile dist --locked --bins --examples

##@ Test

.PHONY: unit
unit: ## tests that need no servers, the simulations among them (TEST=part-of-a-name)
	cargo test $(CARGO_FLAGS) --lib --bins $(UNIT_TESTS:%=--test %) -- $(TEST)
	cargo test $(CARGO_FLAGS) --doc -- $(TEST)
	python3 examples/flights/test_oracle.py --quiet
	python3 bench/test_bench.py --quiet

.PHONY: sim
sim: ## the simulations alone, with these seeds instead of the usual ones (SEEDS=..., TEST=part-of-a-name); or one seed (SEED=...)
	$(if $(SIM_TESTS),,$(error worker/sim/tests has no tests))
	$(if $(SEEDS),SEEDS='$(SEEDS)' )cargo test $(CARGO_FLAGS) $(if $(SEED)$(CLAIM_SEED)$(START_SEED),--test simulation,$(SIM_TESTS:%=--test %)) -- --nocapture $(TEST)

.PHONY: e2e
e2e: build ## tests on a real Kafka and S3, which are started for them and stopped afterwards (TEST=part-of-a-name)
# Without a name cargo would run all tests there are.
	$(if $(SERVER_TESTS),,$(error no tests that need servers))
	cargo test $(CARGO_FLAGS) $(SERVER_TESTS:%=--test %) --no-run
	$(STACK) with kafka s3 -- $(SIDE_BY_SIDE) --jobs=3 $(SERVER_TESTS)

# One that fails does not stop the others.
SIDE_BY_SIDE = make -f e2e/side_by_side.mk --no-print-directory --keep-going --output-sync=target CARGO_FLAGS='$(CARGO_FLAGS)' TEST='$(TEST)' WITHOUT_SIM='$(filter-out $(SIM_TESTS),$(UNIT_TESTS))'

.PHONY: e2e-kubernetes
e2e-kubernetes: build ## tests on a real Kubernetes, which is built the first time (10 minutes) and needs root (TEST=...; or KUBECONFIG)
	cargo test $(CARGO_FLAGS) $(CLUSTER_TESTS:%=--test %) --no-run
# On the cluster that KUBECONFIG names: it has the image of kustomize/base, and its pods reach the Kafka and the S3 of FOREBAY_TEST_*.
	$(if $(KUBECONFIG),cargo test $(CARGO_FLAGS) --no-fail-fast $(CLUSTER_TESTS:%=--test %) -- --test-threads=1 $(TEST),$(KUBERNETES_OF_OUR_OWN))

.PHONY: e2e-many-jobs
e2e-many-jobs: export BENCH_PROFILE := release
e2e-many-jobs: build ## 200 jobs at once in one operator, on nodes that kwok plays, with workers that a stub plays; needs what e2e-kubernetes needs
	$(KUBERNETES) install
	$(KUBERNETES) install-kwok
	$(KUBERNETES) with 0 -- bench/cluster.py check $(ARGS)

# Servers that pods need listen in the cluster's own network, and so does the test. There is no internet in there: all is installed before.
define in_cluster
	$(STACK) install kafka s3
	python3 examples/flights/prepare.py --limit 1 --output $(FOREBAY_CACHE)/flights/one.jsonl
	$(KUBERNETES) install
	$(KUBERNETES) image $(CARGO_TARGET_DIR)/release
	$(KUBERNETES) with -- env FOREBAY_STACK_HOST=10.99.0.1 FOREBAY_STACK_RUN=$(or $(FOREBAY_STACK_RUN),$(FOREBAY_CACHE)/stack/run)/in-cluster \
	  $(STACK) with kafka s3 -- $(1)
endef
KUBERNETES_OF_OUR_OWN = $(call in_cluster,cargo test $(CARGO_FLAGS) --offline --no-fail-fast $(CLUSTER_TESTS:%=--test %) -- --test-threads=1 $(TEST))

.PHONY: stack-up
stack-up: ## start Kafka and S3, for tests by hand: export $(e2e/stack/stack env), then cargo test
	$(STACK) up

.PHONY: stack-down
stack-down: ## stop them, and keep their data
	$(STACK) down

.PHONY: stack-status
stack-status: ## which servers there are, and where
	@$(STACK) status

##@ Measure

# How what is measured was built: `dist`, as images have it, or `release`.
export BENCH_PROFILE ?= dist
BENCH_BUILD := $(if $(filter dist,$(BENCH_PROFILE)),dist,build)

.PHONY: bench
bench: bootstrap-bench $(BENCH_BUILD) ## measure everything, hours; goes on where it was interrupted (ARGS=..., see bench/README.md)
	bench/bench.py run --size full $(ARGS)

.PHONY: bench-quick
bench-quick: bootstrap-bench $(BENCH_BUILD) ## measure enough for a table, about a quarter of an hour (ARGS=...)
	bench/bench.py run --size quick $(ARGS)

.PHONY: bench-smoke
bench-smoke: bootstrap-bench $(BENCH_BUILD) ## see that the bench itself works; its figures mean nothing (ARGS=...)
	bench/bench.py run --size smoke $(ARGS)

.PHONY: bench-operator
bench-operator: $(BENCH_BUILD) ## measure one operator with 200 jobs, on nodes that kwok plays; needs root and Go, as e2e-kubernetes does (ARGS="--jobs 1000")
	$(KUBERNETES) install
	$(KUBERNETES) install-kwok
	$(KUBERNETES) with 0 -- bench/cluster.py scale $(ARGS)

# The cluster's image has what `make build` made.
bench-moves: export BENCH_PROFILE := release
# The broker as bench/harness/servers.py has it, not as short tests do.
bench-moves: export FOREBAY_KAFKA_JVM ?= -Xms1g -Xmx1g -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35
.PHONY: bench-moves
bench-moves: build ## measure moves, the loss of a node and an upgrade, on the cluster of e2e-kubernetes (ARGS="--users 6000000")
	$(call in_cluster,bench/cluster.py moves $(ARGS))

##@ Change

.PHONY: check
check: fmt lint docs unit ## what to run before a commit

.PHONY: fmt
fmt: ## format the code
	cargo fmt --all

.PHONY: lint
lint: ## formatting, the Dockerfile, and clippy; warnings are errors
	cargo fmt --all --check
	scripts/hadolint.sh Dockerfile
	cargo clippy $(CARGO_FLAGS) --all-targets -- -D warnings

.PHONY: docs
docs: ## the API documentation, warnings are errors
	RUSTDOCFLAGS=-Dwarnings cargo doc $(CARGO_FLAGS) --no-deps

.PHONY: deny
deny: ## licences, sources and known vulnerabilities of the dependencies (DENY="licenses ..." for some of it)
	scripts/cargo-deny.sh --locked check $(DENY)

.PHONY: sbom
sbom: ## what the programs of the image consist of, as CycloneDX JSON, in the cache folder's sbom/
	scripts/sbom.sh

.PHONY: generate
generate: ## write the generated files anew
	cargo build $(CARGO_FLAGS) --example generate
	$(CARGO_TARGET_DIR)/release/examples/generate
# Not a part of the workspace, see its manifest.
	cargo run --manifest-path api/generate/Cargo.toml --target-dir $(CARGO_TARGET_DIR)/generate --locked

.PHONY: clean
clean: ## delete what was built and the servers' data; downloads stay
	$(STACK) remove
	cargo clean
