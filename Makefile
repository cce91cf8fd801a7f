# make demo and make test do all their own set-up; see README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: install demo up test test-slow bench-worker check fix clean
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
	@sh scripts/test_services.sh
	$(BIN)/pytest -m "slow or not slow and not cuda"

bench-worker: install
	@sh scripts/test_services.sh
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench,dev]'
	$(BIN)/python bench/run.py

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/settings_table.py --check

fix: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python scripts/settings_table.py

clean:
	rm -rf $(VENV) out dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
