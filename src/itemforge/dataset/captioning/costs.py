"""What captioning costs: an estimate before, the bill's own figures after.

Prices are list prices of a day, and change: `PRICES` says of which day and from where, and every function takes
another table.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from itemforge.dataset.captioning.face import Usage

_LIST = "https://ai.google.dev/gemini-api/docs/pricing"
#: A job's answers cost half (same page).
BATCH_SHARE = 0.5


@dataclass(frozen=True)
class Price:
    """Dollars for a million tokens, as `source` said on `date`. `note`: what else it said."""

    tokens_in: float
    tokens_out: float
    date: str
    source: str = _LIST
    note: str = ""


PRICES: Mapping[str, Price] = {
    "gemini-3.5-flash-lite": Price(0.30, 2.50, "2026-10-07"),
    "gemini-3.5-flash": Price(1.50, 9.00, "2026-10-07"),
    "gemini-3.8-flash": Price(0.75, 3.75, "2026-10-07", note="1.50 and 7.50 from 2027-01-01"),
    "gemini-3.1-flash-lite": Price(0.25, 1.50, "2026-05-07"),
    "gemini-3.1-pro-preview": Price(2.00, 12.00, "2026-10-07"),
}

#: What one picture takes: instruction and schema, the picture at low resolution, the fields as JSON.
PROMPT_TOKENS = 320
PICTURE_TOKENS = 280
ANSWER_TOKENS = 110


@dataclass(frozen=True)
class Cost:
    """Tokens and dollars; dollars are None for a model that the table does not have."""

    pictures: int
    tokens_in: int
    tokens_out: int
    dollars: float | None
    basis: str

    def __str__(self) -> str:
        tokens = f"{self.pictures} pictures, {self.tokens_in} tokens in, {self.tokens_out} out"
        money = "price unknown" if self.dollars is None else f"${self.dollars:.4f}"
        return f"{money} ({tokens}; {self.basis})"


def estimate(
    pictures: int,
    model: str,
    *,
    batch: bool = False,
    prices: Mapping[str, Price] = PRICES,
    tokens_in: int = PROMPT_TOKENS + PICTURE_TOKENS,
    tokens_out: int = ANSWER_TOKENS,
) -> Cost:
    """What asking for so many pictures will cost, none of them known yet.

    >>> str(estimate(1000, "gemini-3.5-flash-lite"))[:8]
    '$0.4550 '
    """
    return _cost(pictures, pictures * tokens_in, pictures * tokens_out, model, batch, prices)


def total(usage: Usage, model: str, *, batch: bool = False, prices: Mapping[str, Price] = PRICES) -> Cost:
    """What was used, by the counts that came with the answers."""
    return _cost(usage.requests, usage.tokens_in, usage.tokens_out, model, batch, prices)


def _cost(
    pictures: int, tokens_in: int, tokens_out: int, model: str, batch: bool, prices: Mapping[str, Price]
) -> Cost:
    price = prices.get(model.removeprefix("models/"))
    if price is None:
        basis = f"no price of {model} is known; give one as dollars for a million tokens in and out"
        return Cost(pictures, tokens_in, tokens_out, None, basis)
    share = BATCH_SHARE if batch else 1.0
    dollars = share * (tokens_in * price.tokens_in + tokens_out * price.tokens_out) / 1e6
    note = f", {price.note}" if price.note else ""
    half = ", half of it in a batch" if batch else ""
    basis = f"${price.tokens_in:.2f} and ${price.tokens_out:.2f} for a million tokens, {price.source}, {price.date}{note}{half}"
    return Cost(pictures, tokens_in, tokens_out, dollars, basis)
