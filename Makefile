# make setup   find or install what the tests and the demo need besides Rust
# make lint    formatting, clippy, dependency rules
# make test    every test of the workspace, on real etcd and nginx
# make demo    watch backends register, die and come back (DEMO_SECONDS=20 ends it)
# make bench   how fast nginx follows (BENCH="put-to-served --sizes 10,1000")
#                (BENCH="render": a whole single run; CONFD_BIN=… beside it)

SHELL := /bin/bash
CARGO ?= cargo
BENCH ?= put-to-served

.DEFAULT_GOAL := help
.PHONY: help setup build lint test demo bench

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup:
	@.ci/setup

build: setup
	$(CARGO) build --workspace --bins

lint:
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then \
		$(CARGO) deny check bans licenses sources; \
	else \
		echo "lint: cargo-deny is not installed, so licences and sources were not checked"; \
	fi

# The binaries on trial are built before, once, instead of by every test process.
test: build
	@folder="$$($(CARGO) metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/debug"; \
	export REGISTER_BIN="$$folder/register" CONFSYNC_BIN="$$folder/confsync" TESTBACKEND_BIN="$$folder/testbackend"; \
	if command -v cargo-nextest >/dev/null; then \
		$(CARGO) nextest run --workspace && $(CARGO) test --workspace --doc; \
	else \
		$(CARGO) test --workspace; \
	fi

demo: setup
	@$(CARGO) build --quiet --workspace --bins
	@$(CARGO) run --quiet -p tests --bin demo

# In the release profile: a debug build would measure itself.
bench: setup
	$(CARGO) build --release --workspace --bins
	$(CARGO) run --release --quiet -p tests --bin bench -- $(BENCH)
