# Every target does the set-up it needs, once. Everything is built with --release, so that libtorch's C++ glue is
# compiled once. Plain cargo commands work too, after `make setup`.
.DEFAULT_GOAL := help
.PHONY: help setup build envs demo test test-games lint bench fuzz clean

# Where rustup puts cargo, for shells that were opened before.
export PATH := $(PATH):$(HOME)/.cargo/bin
TARGET := $(or $(CARGO_TARGET_DIR),target)

define first_build
$(if $(wildcard $(TARGET)/release/build/torch-sys-*/out/libtch.a),,@echo "First build: about 5 minutes on 2 cores \
(mostly libtorch's C++ glue); 3 GB in $(TARGET)/ with the tests.")
endef

help: ## this list
	@echo "Imago: make TARGET [PYTHON=python3.11]"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST)

setup: ## make .venv: libtorch, Gymnasium, TensorBoard (PYTHON=… says from which Python 3.11)
	@sh envs/setup.sh $(if $(filter setup,$(MAKECMDGOALS)),,--quiet) $(if $(PYTHON),"$(PYTHON)")

build: setup ## the program, target/release/imago
	$(first_build)
	cargo build --release

envs: build ## games and simulators into .venv: VizDoom, Mario, Atari, MuJoCo, MiniGrid, Box2D (0.4 GB)
	$(TARGET)/release/imago envs install all

demo: build ## learn CartPole from demonstrations while you watch
	$(TARGET)/release/imago demo

test: setup ## all tests, examples compiled
	$(first_build)
	cargo test --release --workspace

# Slower than `test`, and with everything that `envs` installs.
test-games: envs ## tests with the games, and ten minutes of training while memory stays flat (SOAK_SECONDS=600)
	IMAGO_TEST_GAMES=1 cargo test --release --workspace --test doom --test mario --test mujoco --test gymnasium_vector
	IMAGO_TEST_GAMES=1 IMAGO_SOAK_SECONDS=$(or $(SOAK_SECONDS),600) cargo test --release --workspace --test end_to_end -- \
		memory_stays_flat no_process_outlives recipes_of_games mujoco extra

lint: setup ## format, clippy and documentation, warnings refused
	@cargo fmt --version >/dev/null && cargo clippy --version >/dev/null || \
		{ echo "rustfmt or clippy is missing: rustup component add rustfmt clippy" >&2; exit 2; }
	$(first_build)
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps

bench: setup ## speed beside Python's: half an hour, and 5.6 GB in .venv-bench (ROWS=ppo,gail ROUNDS=1: less of it)
	$(first_build)
	cargo build --release -p imago-experiments --bin imago --example bench_frame_pool --example bench_gan \
		--example bench_picture --example bench_vec_env --example bench_workers
	@.venv/bin/python experiments/bench/bench.py $(if $(ROWS),--rows "$(ROWS)") $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(CORE),--core $(CORE)) $(if $(RESULTS),--to "$(RESULTS)") $(if $(FRESH),--fresh)

# cargo-fuzz passes what libFuzzer needs to a stable compiler too, as long as no sanitizer is asked for (-s none).
CARGO_FUZZ := $(TARGET)/tools/bin/cargo-fuzz
FUZZERS := $(or $(FUZZER),recipes demonstrations checkpoints command_lines)
FUZZ_SECONDS := 60

$(CARGO_FUZZ):
	cargo install --quiet --locked --root $(TARGET)/tools cargo-fuzz

# The program's own, so that what is fuzzed is what is shipped; cargo adds libFuzzer to it.
tests/fuzz/Cargo.lock: Cargo.lock
	cp $< $@

# Whole paths: the fuzzer of command lines works in a directory of its own.
fuzz: setup $(CARGO_FUZZ) tests/fuzz/Cargo.lock ## look for what makes it panic: FUZZ_SECONDS=60 each, FUZZER=recipes for one
	@$(if $(wildcard $(TARGET)/fuzz),,echo "First build: about 6 minutes on 2 cores, 3 GB in $(TARGET)/fuzz.")
	$(CARGO_FUZZ) build --fuzz-dir $(CURDIR)/tests/fuzz --sanitizer none --target-dir $(TARGET)/fuzz
	@set -e; files=$$(mktemp -d $$([ ! -w /dev/shm ] || echo -p /dev/shm)); trap 'rm -rf "$$files"' EXIT; \
	for fuzzer in $(FUZZERS); do \
		echo "== $$fuzzer: $(FUZZ_SECONDS) seconds"; \
		found=$(abspath $(TARGET))/fuzz/corpus/$$fuzzer; mkdir -p $$found; \
		words=; [ ! -f tests/fuzz/$$fuzzer.dict ] || words=-dict=tests/fuzz/$$fuzzer.dict; \
		TMPDIR=$$files $(CARGO_FUZZ) run --fuzz-dir $(CURDIR)/tests/fuzz --sanitizer none --target-dir $(TARGET)/fuzz $$fuzzer \
			$$found $(CURDIR)/tests/fuzz/seeds/$$fuzzer -- $$words \
			-max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048 -timeout=20 -max_len=16384 -print_final_stats=1; \
	done

clean: ## remove what was built; .venv and .venv-bench stay
	cargo clean
