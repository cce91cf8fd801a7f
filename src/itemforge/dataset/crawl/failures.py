"""Why something could not be fetched, in a few words each, so that a run can count its failures by reason."""

import httpcore


class NotFetched(Exception):
    """It cannot be had in this run.

    `reason` is the same for the same cause, `detail` says which. `wait` is how long the server asks to be left alone;
    `away` tells that other things from the same host will fail as well.
    """

    def __init__(self, reason: str, detail: str = "", wait: float = 0.0, away: bool = False) -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason
        self.wait = wait
        self.away = away


class Again(Exception):
    """Another try may succeed. `wait` is what the server asks for, None if it says nothing."""

    def __init__(self, reason: str, wait: float | None = None, away: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait = wait
        self.away = away


class AddressRefused(httpcore.ConnectError):
    """The host is this machine, or one of a private network."""


class Refused(Exception):
    """A way of crawling does not work here; another may. The text says why."""


class Stopped(Exception):
    """The run ends before its end: a limit is reached. The text says which."""
