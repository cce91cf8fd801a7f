"""How much is tried, and from which seed: a little in `make test`, always the same; a lot in `make fuzz`."""

import os
import random

LARGE = os.environ.get("ITEMFORGE_TEST_FUZZ") == "large"
#: `make fuzz` draws one and says it; give it in ITEMFORGE_TEST_FUZZ_SEED to see the same again.
SEED = int(os.environ.get("ITEMFORGE_TEST_FUZZ_SEED") or (random.randrange(2**32) if LARGE else 20_240_607))


def count(small: int, large: int) -> int:
    """How many cases this run tries."""
    return large if LARGE else small


def dice(name: str) -> random.Random:
    """Random numbers of one test's own, so that a test run alone draws what it draws among the others."""
    return random.Random(f"{SEED} {name}")
