# make setup   find or install what the tests and the demo need besides Rust
# make lint    formatting, clippy, dependency rules
# make test    every test of the workspace, on real etcd and nginx
# make demo    watch backends register, die and come back (DEMO_SECONDS=20 ends it)
# make packages   Debian packages of both daemons, in target/debian
# make dist       everything a release has, in target/dist (SIGN_KEY=FILE signs it)
# make fuzz-confd CONFD=PATH   random confdirs, rendered by both (SECONDS=60, FORK=1, SEED=N)
# make advisories   known faults of our dependencies, by the copy of RustSec's list that is here
# make soak   random faults for MINUTES=60, with SEED=N the same ones again
# make bench   what it costs and how fast it is (BENCH="--help" lists the questions)

SHELL := /bin/bash
CARGO ?= cargo
BENCH ?= put-to-served

.DEFAULT_GOAL := help
.PHONY: help setup lint test demo packages dist bench fuzz-confd advisories soak

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup:
	@.ci/setup

# The last of the three sees the programs as they are shipped: without the features that unit
# tests add to the dependencies.
lint:
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) check
	@if command -v cargo-deny >/dev/null; then \
		$(CARGO) deny check bans licenses sources; \
	else \
		echo "lint: cargo-deny is not installed, so licences and sources were not checked"; \
	fi

# The binaries on trial are built before, once, instead of by every test process; and together
# with the tests: alone they get a tokio without what unit tests need of it, and half of all
# dependencies would be built a second time for the tests.
#
# Two tests to a core, because most of them wait: for a lease to end, a loss to be verified.
# One that works counts as two (.config/nextest.toml).
test: setup
	$(CARGO) build --workspace --bins --tests
	@folder="$$($(CARGO) metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/debug"; \
	export REGISTER_BIN="$$folder/register" CONFSYNC_BIN="$$folder/confsync" TESTBACKEND_BIN="$$folder/testbackend"; \
	export TEST_SKIPPED="$$(mktemp)"; trap 'cat "$$TEST_SKIPPED"; rm -f "$$TEST_SKIPPED"' EXIT; \
	if command -v cargo-nextest >/dev/null; then \
		$(CARGO) nextest run --workspace --test-threads $$((2 * $$(nproc))) && $(CARGO) test --workspace --doc; \
	else \
		$(CARGO) test --workspace; \
	fi

demo: setup
	@$(CARGO) build --quiet --workspace --bins
	@$(CARGO) run --quiet -p tests --bin demo

# In the release profile: a debug build would measure itself. The programs are built alone, as they
# are shipped: together with the tests they get what only those need of tokio.
bench: setup
	$(CARGO) build --release
	$(CARGO) run --release --quiet -p tests --bin bench -- $(BENCH)

packages: setup
	command -v cargo-deb >/dev/null || $(CARGO) install --locked cargo-deb
	$(CARGO) build --release
	$(CARGO) run --quiet -p tests --bin pages -- target/release/generated
	gzip -9nf target/release/generated/*.8
	$(CARGO) deb --no-build -p register
	$(CARGO) deb --no-build -p confsync

dist: setup
	@.ci/dist

fuzz-confd: setup
	@$(CARGO) build --quiet --workspace --bins
	@$(CARGO) run --quiet -p tests --bin fuzz_confd -- --confd "$(CONFD)" --seconds $(or $(SECONDS),60) $(if $(FORK),--fork) $(if $(SEED),--seed $(SEED))

advisories:
	$(CARGO) deny --offline check advisories

soak: setup
	@$(CARGO) build --quiet --workspace --bins
	@FAULTS_ALOUD=1 $(CARGO) run --quiet -p tests --bin soak -- --minutes $(or $(MINUTES),60) $(if $(SEED),--seed $(SEED))
