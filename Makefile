# Every target does the set-up it needs, once. Everything is built with --release, so that libtorch's C++ glue is
# compiled once. Plain cargo commands work too, after `make setup`.
.DEFAULT_GOAL := help
.PHONY: help setup build demo test lint bench clean

# Where rustup puts cargo, for shells that were opened before.
export PATH := $(PATH):$(HOME)/.cargo/bin
TARGET := $(or $(CARGO_TARGET_DIR),target)

define first_build
$(if $(wildcard $(TARGET)/release/build/torch-sys-*/out/libtch.a),,@echo "First build: about 5 minutes on 2 cores \
(mostly libtorch's C++ glue); 3 GB in $(TARGET)/ with the tests.")
endef

help: ## this list
	@echo "Imago: make TARGET [PYTHON=python3.11]"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST)

setup: ## make .venv: libtorch, Gymnasium, TensorBoard (PYTHON=… says from which Python 3.11)
	@sh envs/setup.sh $(if $(filter setup,$(MAKECMDGOALS)),,--quiet) $(if $(PYTHON),"$(PYTHON)")

build: setup ## the program, target/release/imago
	$(first_build)
	cargo build --release

demo: build ## learn CartPole from demonstrations while you watch
	$(TARGET)/release/imago demo

test: setup ## all tests, examples compiled
	$(first_build)
	cargo test --release --workspace

lint: setup ## format, clippy and documentation, warnings refused
	@cargo fmt --version >/dev/null && cargo clippy --version >/dev/null || \
		{ echo "rustfmt or clippy is missing: rustup component add rustfmt clippy" >&2; exit 2; }
	$(first_build)
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps

bench: setup ## speed beside Python's: half an hour, and 5.6 GB in .venv-bench (ROWS=ppo,gail ROUNDS=1: less of it)
	$(first_build)
	cargo build --release -p imago-experiments --bin imago --example bench_frame_pool --example bench_vec_env
	@.venv/bin/python experiments/bench/bench.py $(if $(ROWS),--rows "$(ROWS)") $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(CORE),--core $(CORE)) $(if $(RESULTS),--to "$(RESULTS)") $(if $(FRESH),--fresh)

clean: ## remove what was built; .venv and .venv-bench stay
	cargo clean
