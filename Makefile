# Everything a clone needs; `make up` on a fresh Debian machine, as root, does its own set-up.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# DIR: the folder of compose files that `make parity` compares on.
DIR ?= tests/fixtures
# COUNT: how often `make test-chaos` kills.
COUNT ?= 300
BINARY := $(or $(CARGO_TARGET_DIR),target)/image/sense-orchestrator

.PHONY: help up down logs build image test test-current test-memory test-chaos simulate mutants lint parity

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

up: ## set up what is missing, build, start the stack, show the first runs; REGISTRY=1: build and pull from a registry
	@scripts/up

down: ## stop the stack and remove everything that it made
	@scripts/down

logs: ## follow the orchestrator's log
	@scripts/compose logs --follow --no-log-prefix orchestrator

build: ## the static release binary
	@scripts/binary

image: ## the orchestrator's image from the static binary; REGISTRY=1: built in a container
	@scripts/image

test: ## all tests; those that need Docker, Compose or Redis say so when they are skipped
	@scripts/test

test-current: ## the tests against a Docker Engine, on Debian's newest, started for them
	@scripts/test-current

test-chaos: ## kill the daemon with -9 COUNT times in mid-work, and compare its ledger with the Engine's events
	@scripts/test-chaos $(COUNT)

test-memory: ## the image within the 32 MiB that it ships with, on inputs that would take more
	@scripts/test-memory

simulate: ## the daemon simulated: SEEDS=0..2000 many, SEEDS=17 one with its trace
	@SEEDS=$(or $(SEEDS),0..2000) cargo test --locked --profile twin --test twin whatever -- --nocapture

mutants: ## prove the simulation: make each fault of tests/twin/mutants.txt, and see that a seed finds it; some hours
	@scripts/mutants $(MUTANTS)

lint: ## format, clippy and docs, warnings are errors
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

parity: build ## compare with the real docker compose on every compose file below DIR
	@scripts/setup engine compose redis images
	scripts/parity-load $(DIR)
	scripts/parity-engine --binary $(BINARY) --image busybox:1 $(DIR)
	scripts/parity-up --binary $(BINARY) --image busybox:1 $(DIR)
