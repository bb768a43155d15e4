# `make` lists the targets.

export CARGO_TARGET_DIR ?= $(HOME)/.cache/a3s-box/target

.DEFAULT_GOAL := help
.PHONY: help test fmt clippy unit

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

test: ## run all checks and tests, with all that these need
	@packaging/steps test fmt clippy unit

fmt: ## check the formatting of Rust code
	cargo fmt --all --check

clippy: ## lint Rust code
	cargo clippy --workspace --all-features --all-targets --locked -- -D warnings

unit: ## run the unit tests
	cargo test --workspace --all-features --locked
