"""Fuzzing: hostile input from every side. See docs/security.md."""

import sys
from pathlib import Path

import pytest

# The gateway and the worker under fuzz are set up as in their own tests.
for neighbour in ("gateway", "worker", "engine"):
    sys.path.append(str(Path(__file__).parents[1] / neighbour))

from size import LARGE, SEED  # noqa: E402


def pytest_report_header(config: pytest.Config) -> str:
    return f"fuzz: seed {SEED}, {'large' if LARGE else 'small'}"


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    if call.excinfo is not None and call.when == "call":
        item.add_report_section("call", "fuzz", f"ITEMFORGE_TEST_FUZZ_SEED={SEED}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if LARGE:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.timeout(3600))
