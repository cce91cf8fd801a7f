"""What a call of the client may raise, besides what every part of ItemForge does.

RetryableError
├── GatewayUnavailable     no answer, or 5xx, after all tries
├── RateLimited            429: the key's rate or quota is used up; `retry_after` says for how long
└── WaitTimeout            the time to wait is over, and the generation goes on; also a TimeoutError
PermanentError
├── GatewayRefused         any other 4xx, with the gateway's words in `detail`
│   ├── NotAllowed         401, 403: no key, a wrong one, or one of another role
│   └── NotFound           404: no such generation or style, or another owner's
└── GenerationFailed       it ended without pictures: `generation` has the reason
"""

from itemforge.client.answers import Generation
from itemforge.errors import GatewayRefused, PermanentError, RetryableError


class RateLimited(RetryableError):
    """The key's rate or quota is used up.

    `retry_after` is the seconds until there is a place again; None where the gateway does not say.
    """

    def __init__(self, detail: str, retry_after: float | None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after


class WaitTimeout(RetryableError, TimeoutError):
    """The time to wait is over. The generation goes on; wait again, or cancel it."""


class NotAllowed(GatewayRefused):
    """The key is missing, wrong, or of another role."""


class NotFound(GatewayRefused):
    """There is nothing under this name that the key may see."""


class GenerationFailed(PermanentError):
    """A generation ended as Failed or Cancelled."""

    def __init__(self, generation: Generation) -> None:
        reason = generation.error or "no reason given"
        super().__init__(f"the generation {generation.id} ended as {generation.status}: {reason}")
        self.generation = generation
