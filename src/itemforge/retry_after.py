"""How long a server asks to wait: the Retry-After header (RFC 9110, section 10.2.3)."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: Fractions are no standard, and are sent.
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")
#: Longer than anybody waits, and a number that clocks can count with.
_LONGEST = 1e8


def seconds(header: str | None) -> float | None:
    """Seconds from now, 0 or more; None where the header is missing, or is neither a number nor a date.

    >>> seconds("120")
    120.0
    """
    said = (header or "").strip()
    if _SECONDS.fullmatch(said):
        return min(float(said), _LONGEST)
    try:
        moment = parsedate_to_datetime(said)
        moment = moment.replace(tzinfo=moment.tzinfo or UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return None
