"""Captioning a whole set: every picture ends with an answer or a reason, and nothing is asked twice.

Pictures are asked for in the order they were given. Each thread stores an answer before it takes the next
picture, so Ctrl+C or a kill loses at most what was under way.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from itemforge.dataset.captioning.cache import CaptionCache
from itemforge.dataset.captioning.face import Answer, Captioner, Failed, Key, Picture, Reason
from itemforge.dataset.captioning.ledger import Item, Ledger, Progress, Summary
from itemforge.dataset.captioning.limits import Gate, Limits, Stopped
from itemforge.errors import InvalidInput, ItemForgeError

#: Tries of one picture in one run, for failures after which this run should ask again.
_TRIES = {Reason.RATE: 6}
_TRIES_ELSE = 2
#: Failures that say nothing of the picture.
_OF_THE_SERVICE = {Reason.RATE, Reason.SERVER, Reason.TIMEOUT, Reason.CONNECTION}


class Interrupted(KeyboardInterrupt):
    """Ctrl+C, with what was done until then."""

    def __init__(self, summary: Summary) -> None:
        super().__init__()
        self.summary = summary


def caption_all(
    items: Iterable[Item],
    provider: Captioner,
    cache: CaptionCache,
    concurrency: int = 4,
    limits: Limits | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    *,
    ask_failed_again: bool = False,
) -> Summary:
    """Caption what is not captioned yet. `on_progress` is called in the caller's thread.

    Raises:
        InvalidInput: a concurrency below 1.
        Interrupted: Ctrl+C; what was under way has been finished and stored. A second Ctrl+C does not wait for it.
    """
    if concurrency < 1:
        raise InvalidInput("at least one picture at a time must be allowed")
    ledger = Ledger([Picture(*item) for item in items], provider, on_progress)
    todo = ledger.take_known(cache, ask_failed_again)
    gate = Gate(limits or Limits(), cache, provider.model)
    crew = _Crew(todo, provider, cache, gate)
    try:
        for key, answer in crew.work(concurrency):
            ledger.add(key, answer)
    except KeyboardInterrupt:
        gate.stop("interrupted")
        for key, answer in crew.rest().items():
            ledger.add(key, answer)
        raise Interrupted(ledger.summary(gate.why)) from None
    except BaseException:
        gate.stop("")
        crew.rest()  # they store what they have: the caller may close the cache only after that
        raise
    return ledger.summary(gate.why)


def to_ask(
    items: Iterable[Item], provider: Captioner, cache: CaptionCache, *, ask_failed_again: bool = False
) -> int:
    """How many pictures a run would ask for: what to estimate the cost of."""
    ledger = Ledger([Picture(*item) for item in items], provider, None)
    return len(ledger.take_known(cache, ask_failed_again))


class _Crew:
    """The threads that ask."""

    def __init__(
        self, todo: dict[Key, Picture], provider: Captioner, cache: CaptionCache, gate: Gate
    ) -> None:
        self._todo: queue.SimpleQueue[tuple[Key, Picture]] = queue.SimpleQueue()
        for item in todo.items():
            self._todo.put(item)
        self._size = len(todo)
        self._provider, self._cache, self._gate = provider, cache, gate
        #: Answers, and a None from each thread that has ended.
        self._done: queue.SimpleQueue[tuple[Key, Answer] | None] = queue.SimpleQueue()
        #: All answers: Ctrl+C may come between the queue and the one who reads it.
        self._answered: dict[Key, Answer] = {}
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._in_a_row = 0

    def work(self, concurrency: int) -> Iterator[tuple[Key, Answer]]:
        """The answers as they come, until all threads have ended."""
        # Daemons: a second Ctrl+C ends the process without waiting for the service.
        self._threads = [
            threading.Thread(target=self._run, name=f"caption-{number}", daemon=True)
            for number in range(min(concurrency, self._size))
        ]
        for thread in self._threads:
            thread.start()
        for _ in self._threads:
            while (done := self._done.get()) is not None:
                yield done

    def rest(self) -> dict[Key, Answer]:
        """All answers, those that `work` gave too, once all threads have ended."""
        for thread in self._threads:
            if thread.is_alive():  # not so where Ctrl+C came before it was started
                thread.join()
        return self._answered

    def _run(self) -> None:
        try:
            while True:
                key, picture = self._todo.get_nowait()
                answer = self._ask(picture)
                self._cache.put(key, answer)
                self._answered[key] = answer
                self._done.put((key, answer))
                self._judge(answer)
        except (queue.Empty, Stopped):
            pass
        except Exception as error:  # the cache's disk is full, or a defect: the others need not go on
            self._gate.stop(f"an unexpected error ({type(error).__name__}: {str(error)[:200]})")
        finally:
            self._done.put(None)

    def _ask(self, picture: Picture) -> Answer:
        """Ask until there is an answer, or no use in asking again. What all tries cost is counted."""
        self._gate.enter()
        answer = _safely(self._provider, picture)
        tries = 1
        while isinstance(answer, Failed) and self._again(answer, tries):
            try:
                self._gate.enter()
            except Stopped:  # the run ends while this one waits: the failure that it had
                break
            paid, answer = answer.usage, _safely(self._provider, picture)
            answer = replace(answer, usage=paid + answer.usage)
            tries += 1
        return answer

    def _again(self, failed: Failed, tries: int) -> bool:
        """Whether to try once more, after the wait that the failure asks for."""
        if failed.wait is None or failed.stops or tries >= _TRIES.get(failed.reason, _TRIES_ELSE):
            return False
        if failed.wait > self._gate.limits.longest_wait:
            self._gate.stop(f"the service asks to wait for {failed.wait:.0f} seconds: {failed.text}")
            return False
        if failed.wait > 0:
            self._gate.hold(failed.wait)
        return True

    def _judge(self, answer: Answer) -> None:
        """Whether the run still makes sense."""
        if isinstance(answer, Failed) and answer.stops:
            self._gate.stop(answer.text)
        with self._lock:
            failed = isinstance(answer, Failed) and answer.reason in _OF_THE_SERVICE
            self._in_a_row = self._in_a_row + 1 if failed else 0
            if isinstance(answer, Failed) and self._in_a_row >= self._gate.limits.give_up_after:
                self._gate.stop(f"{self._in_a_row} pictures in a row failed, the last one: {answer.text}")


def _safely(provider: Captioner, picture: Picture) -> Answer:
    try:
        return provider.caption(picture)
    except (OSError, ItemForgeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        return Failed(Reason.UNREADABLE, f"the picture cannot be loaded ({why})")
    except (
        Exception
    ) as error:  # one picture never ends the run; the text may quote a request, so it is not shown
        return Failed(Reason.CRASHED, f"an unexpected error ({type(error).__name__})")
