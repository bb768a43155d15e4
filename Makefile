# `make` lists the targets.

export CARGO_TARGET_DIR ?= $(HOME)/.cache/a3s-box/target
# The tree of files that a node would have installed: what demo, tests and benchmarks run.
export A3S_BOX_STAGE := $(CURDIR)/target/stage

.DEFAULT_GOAL := help
.PHONY: help demo test show setup fmt clippy unit build helpers guest stage e2e bench overhead critest kubelet containerd test-runc

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: ## run a pod in its own MicroVM, with all that this needs
	@packaging/steps demo setup stage show

test: ## run all checks and tests, with all that these need
	@packaging/steps test setup fmt clippy helpers unit guest stage show e2e

setup: ## install Debian packages; check for Rust and Go
	@packaging/setup/toolchains
	@packaging/setup/debian

fmt: ## check the formatting of Rust and Go code
	cargo fmt --all --check
	cd tests && unformatted=$$(gofmt -l .) && test -z "$$unformatted" || { echo "gofmt: $$unformatted" >&2; false; }

clippy: ## lint Rust and Go code
	cargo clippy --workspace --all-features --all-targets --locked -- -D warnings
	cd tests && go vet ./...
	cd tests/kubelet && go vet ./...
	cd tests/unpack && go vet ./...

unit: helpers ## run the unit tests
	cargo test --workspace --all-features --locked

build: ## build the frontend and the shim
	cargo build --release --locked --package a3s-box-cri --package a3s-box-shim

helpers: ## build virtiofsd, vhost-device-vsock and mkfs.erofs
	@packaging/helpers/build
	@packaging/erofs-utils/build

guest: ## build the guest image: kernel, initramfs with the agent, helpers, manifest
	@packaging/guest/build

stage: build ## lay out all files of a node in target/stage
	@packaging/stage $(A3S_BOX_STAGE)

e2e: stage ## run the end-to-end tests
	tests/side-by-side '^Test[A-O]' '^Test[P-Z]'

containerd: stage ## run pods through containerd with our shim, and what a pod's spec says too
	cd tests && A3S_BOX_TEST_RUNTIME=containerd go test -count=1 -timeout 30m ./e2e -run '^TestContainerd|^TestParity'

test-runc: ## run the tests of what a pod's spec says against containerd and runc: does a test ask for what they do?
	cd tests && A3S_BOX_TEST_RUNTIME=runc go test -count=1 -timeout 30m ./e2e -run '^TestParity'

bench: stage ## measure, and write target/bench.json
	cd tests && go run ./bench

overhead: stage ## measure what a pod costs, and compare with packaging/kubernetes/runtimeclass.yaml
	cd tests && go run ./overhead

critest: stage ## run the CRI's conformance tests (crictl and critest must be on PATH)
	cd tests && go run ./critest

kubelet: stage ## run a static pod through a real kubelet
	cd tests/kubelet && go test -count=1 -timeout 30m ./...

show: stage
	cd tests && go run ./demo
