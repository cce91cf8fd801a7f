"""Retry-After, as servers write it."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from itemforge import retry_after


@pytest.mark.parametrize(
    ("header", "expected"),
    [("120", 120.0), (" 7 ", 7.0), ("0", 0.0), ("0.5", 0.5), ("9" * 400, 1e8)],
)
def test_a_number_is_seconds(header: str, expected: float) -> None:
    assert retry_after.seconds(header) == expected


@pytest.mark.parametrize("zone", [UTC, None], ids=["GMT", "-0000"])
def test_a_date_is_counted_from_now(zone: object) -> None:
    at = datetime.now(UTC) + timedelta(seconds=100)
    header = format_datetime(at if zone else at.replace(tzinfo=None), usegmt=zone is not None)
    found = retry_after.seconds(header)
    assert found is not None and 60 < found <= 100


def test_a_date_that_is_over_is_no_wait() -> None:
    assert retry_after.seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


@pytest.mark.parametrize(
    "header",
    [None, "", "soon", "-5", "1e9", "٣", "1.", "Wed, 99 Oct 2015"],
)
def test_what_says_nothing_is_none(header: str | None) -> None:
    assert retry_after.seconds(header) is None
