# make demo and make test do all their own set-up; see README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: install demo up test test-slow fuzz faults nemesis mutants bench fleet check fix clean
.DEFAULT_GOAL := demo

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt scripts/make_venv.sh
	@sh scripts/make_venv.sh "$(PYTHON)" "$(VENV)"
	@touch $@

demo: install
	@$(BIN)/itemforge demo --out out/demo

up: install
	@$(BIN)/itemforge up

test: install
	@sh scripts/test_services.sh
	$(BIN)/pytest
	@$(MAKE) --no-print-directory check

test-slow: install
	@sh scripts/test_services.sh --slow
	$(BIN)/pytest -m "slow or not slow and not cuda"

# Another seed each time; ITEMFORGE_TEST_FUZZ_SEED=… repeats one.
fuzz: install
	@sh scripts/test_services.sh
	ITEMFORGE_TEST_FUZZ=large $(BIN)/pytest tests/fuzz -rP

faults: install
	@sh scripts/test_services.sh
	$(BIN)/pytest tests/faults

# ITEMFORGE_TEST_NEMESIS_SEED=n repeats the order of a run, which tells its seed in its first line.
nemesis: install
	@sh scripts/test_services.sh
	ITEMFORGE_TEST_NEMESIS_SECONDS=$${ITEMFORGE_TEST_NEMESIS_SECONDS:-300} $(BIN)/pytest -s tests/faults/test_nemesis.py

mutants: install
	@sh scripts/test_services.sh
	@$(BIN)/python scripts/mutants.py

bench: install
	@sh scripts/test_services.sh
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench,dev]'
	$(BIN)/python bench/run.py

# A day of 50 workers in minutes; options: bench/fleet.py --help.
fleet: install
	@sh scripts/test_services.sh
	$(BIN)/python bench/fleet.py

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/settings_table.py --check
	$(BIN)/python scripts/metrics_table.py --check
	@sh scripts/check_deploy.sh $(BIN)

fix: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python scripts/settings_table.py
	$(BIN)/python scripts/metrics_table.py

clean:
	rm -rf $(VENV) out dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
