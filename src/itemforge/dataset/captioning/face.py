"""What captions pictures, as the run sees it. Answers are values: a picture that fails is no exception.

Implementations: `by_name.NameCaptioner`, `local.LocalCaptioner`, `gemini.GeminiCaptioner`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from itemforge.dataset.captioning.fields import CaptionFields


class Picture(NamedTuple):
    """A picture to caption. `load` gives its PNG; `name` is what its source calls the item."""

    sha256: str
    load: Callable[[], bytes]
    name: str = ""


class Key(NamedTuple):
    """What an answer depends on: with the same key nobody is asked twice."""

    picture: str
    prompt: str
    model: str


class Reason(StrEnum):
    """Why there is no caption."""

    UNREADABLE = "unreadable"  # the picture itself cannot be loaded
    NO_NAME = "no name"  # nothing that names a thing: neither by the wiki nor by the model
    BLOCKED = "blocked"  # the request was blocked before anything was generated
    SAFETY = "safety"  # generation was stopped by a filter
    RECITATION = "recitation"  # generation was stopped as too near to a source
    REFUSED = "refused"  # the model said that it will not
    TRUNCATED = "truncated"  # the answer ended before it was whole
    MALFORMED = "malformed"  # no answer in the agreed form
    LEAKED = "leaked"  # thinking instead of a description
    EMPTY = "empty"  # an answer with nothing in it
    INVALID = "invalid"  # the service does not take this picture
    RATE = "rate"  # too many requests for now
    QUOTA = "quota"  # too many for today, or what was paid for is used up
    SERVER = "server"  # the service failed
    TIMEOUT = "timeout"
    CONNECTION = "connection"  # it cannot be reached, or the line was cut
    SETUP = "set-up"  # key, model name or account is wrong
    CRASHED = "crashed"  # an error that nobody expected
    NOT_ASKED = "not asked"  # the run ended before this picture
    PENDING = "pending"  # in a batch job that has not ended


@dataclass(frozen=True)
class Usage:
    """Tokens that were paid for. Thinking is billed as output and counted in it."""

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.requests + other.requests,
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
        )


@dataclass(frozen=True)
class Captioned:
    """What is to be seen."""

    fields: CaptionFields
    usage: Usage = Usage()


@dataclass(frozen=True)
class Failed:
    """No caption, and why.

    `retryable`: it may succeed later. `wait`: seconds after which this same run should try again; None when it
    should not. `stops`: no other picture would fare better now.
    """

    reason: Reason
    text: str
    retryable: bool = False
    wait: float | None = None
    stops: bool = False
    usage: Usage = Usage()


Answer = Captioned | Failed


class Captioner(Protocol):
    """Says what a picture shows. Called from several threads at once."""

    @property
    def model(self) -> str:
        """What answers, for the record and the price."""

    def key(self, picture: Picture) -> Key:
        """What the answer for this picture depends on."""

    def caption(self, picture: Picture) -> Answer:
        """Ask once. Only what `Picture.load` raises may come through."""
