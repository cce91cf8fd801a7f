"""Ways to write "one folder up" that a server may let through, whole, encoded and half encoded."""

CLIMBS = (
    "../",
    "..%2f",
    "%2e%2e/",
    "%2e%2e%2f",
    "..%252f",
    "..\\",
    "..%5c",
    "....//",
    ".%00./",
    "%c0%ae%c0%ae/",
)
