"""The books of a run: which picture has which answer, and what all of them cost."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from itemforge.dataset.captioning.cache import CaptionCache
from itemforge.dataset.captioning.face import (
    Answer,
    Captioned,
    Captioner,
    Failed,
    Key,
    Picture,
    Reason,
    Usage,
)

Item = Picture | tuple[str, Callable[[], bytes], str]


@dataclass(frozen=True)
class Outcome:
    """How one picture ended, and under which key. `known`: the answer was there from before and cost nothing."""

    sha256: str
    name: str
    key: Key
    answer: Answer
    known: bool = False


@dataclass(frozen=True)
class Progress:
    """How far a run is, after one more picture."""

    done: int
    total: int
    outcome: Outcome


@dataclass(frozen=True)
class Summary:
    """A run: an outcome for each item, in their order. `usage` is this run's alone; `stopped` says why it ended early."""

    outcomes: tuple[Outcome, ...]
    usage: Usage
    seconds: float
    stopped: str | None = None

    @property
    def captioned(self) -> int:
        return sum(isinstance(outcome.answer, Captioned) for outcome in self.outcomes)

    @property
    def known(self) -> int:
        return sum(outcome.known for outcome in self.outcomes)

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """Those without a caption, for whatever reason."""
        return tuple(outcome for outcome in self.outcomes if isinstance(outcome.answer, Failed))


class Ledger:
    """Who has an answer yet. Items with the same question share one."""

    def __init__(
        self,
        pictures: list[Picture],
        provider: Captioner,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._begun = time.monotonic()
        self._keyed = [(provider.key(picture), picture) for picture in pictures]
        self._sharing: dict[Key, list[Picture]] = {}
        for key, picture in self._keyed:
            self._sharing.setdefault(key, []).append(picture)
        self._answers: dict[Key, tuple[Answer, bool]] = {}
        self._tell = on_progress or (lambda progress: None)
        self._done = 0

    def take_known(self, cache: CaptionCache, ask_failed_again: bool) -> dict[Key, Picture]:
        """Take from the cache what it has, and give what it has not, in order."""
        todo = {}
        for key, pictures in self._sharing.items():
            answer = cache.get(key)
            if answer is None or (ask_failed_again and isinstance(answer, Failed)):
                todo[key] = pictures[0]
            else:
                self.add(key, answer, known=True)
        return todo

    def add(self, key: Key, answer: Answer, *, known: bool = False) -> None:
        """Take one answer. A second time changes nothing: after Ctrl+C the crew hands over all that it has."""
        if key in self._answers:
            return
        self._answers[key] = (answer, known)
        for picture in self._sharing[key]:
            self._done += 1
            outcome = Outcome(picture.sha256, picture.name, key, answer, known)
            self._tell(Progress(self._done, len(self._keyed), outcome))

    def summary(self, stopped: str | None) -> Summary:
        left = Failed(
            Reason.NOT_ASKED, f"the run ended before this picture: {stopped}; run it again", retryable=True
        )
        outcomes = []
        for key, picture in self._keyed:
            answer, known = self._answers.get(key, (left, False))
            outcomes.append(Outcome(picture.sha256, picture.name, key, answer, known))
        usage = sum((answer.usage for answer, known in self._answers.values() if not known), Usage())
        return Summary(tuple(outcomes), usage, time.monotonic() - self._begun, stopped)
