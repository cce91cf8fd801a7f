"""A whole run: order, limits, retries, what is kept, and what nobody is asked for twice."""

import itertools
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from captioning_pictures import picture, png, sha256
from gemini_server import GeminiServer, Reply, described, error, quota, spoken

from itemforge.dataset.captioning.by_name import NameCaptioner
from itemforge.dataset.captioning.cache import CaptionCache
from itemforge.dataset.captioning.costs import total
from itemforge.dataset.captioning.face import Answer, Captioned, Failed, Key, Picture, Reason, Usage
from itemforge.dataset.captioning.fields import CaptionFields
from itemforge.dataset.captioning.gemini import GeminiCaptioner
from itemforge.dataset.captioning.ledger import Ledger, Progress, Summary
from itemforge.dataset.captioning.limits import Limits
from itemforge.dataset.captioning.rendering import Look, render
from itemforge.dataset.captioning.run import Interrupted, caption_all, to_ask
from itemforge.errors import ConfigurationError, InvalidInput


def reasons(summary: Summary) -> list[Reason | None]:
    return [each.answer.reason if isinstance(each.answer, Failed) else None for each in summary.outcomes]


def test_every_picture_once_and_in_order(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache
) -> None:
    seen: list[Progress] = []
    items = [picture(number) for number in range(6)]
    assert to_ask(items, captioner, cache) == 6
    summary = caption_all(items, captioner, cache, concurrency=1, on_progress=seen.append)
    assert to_ask(items, captioner, cache) == 0
    assert [each.sha256 for each in summary.outcomes] == [sha256(number) for number in range(6)]
    assert gemini.pictures() == [sha256(number) for number in range(6)]
    assert (summary.captioned, summary.known, summary.failed, summary.stopped) == (6, 0, (), None)
    assert [(each.done, each.total) for each in seen] == [(number, 6) for number in range(1, 7)]
    cost = total(summary.usage, captioner.model)
    assert (cost.pictures, cost.tokens_in, cost.tokens_out) == (6, 3600, 600)
    assert cost.dollars == pytest.approx((3600 * 0.30 + 600 * 2.50) / 1e6)

    again = caption_all(items, captioner, cache, concurrency=3)
    assert (again.captioned, again.known, again.usage) == (6, 6, Usage())
    assert len(gemini.pictures()) == 6


def test_order_does_not_depend_on_who_answers_first(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache
) -> None:
    late = threading.Event()
    gemini.script(png(0), Reply(before=lambda: late.wait(5)))
    gemini.script(png(5), Reply(before=late.set))
    summary = caption_all([picture(number) for number in range(6)], captioner, cache, concurrency=2)
    assert [each.sha256 for each in summary.outcomes] == [sha256(number) for number in range(6)]
    assert summary.captioned == 6


def test_the_same_picture_twice_is_asked_for_once(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache
) -> None:
    items = [picture(1, "Sword"), picture(2), picture(1, "Blade")]
    summary = caption_all(items, captioner, cache)
    assert summary.captioned == 3
    assert sorted(gemini.pictures()) == sorted([sha256(1), sha256(2)])


def test_bad_pictures_stop_nobody(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache
) -> None:
    def unreadable() -> bytes:
        raise FileNotFoundError(2, "No such file or directory", "/somewhere/secret.png")

    def defect() -> bytes:
        raise ZeroDivisionError("secret")

    gemini.script(png(1), Reply(body={"promptFeedback": {"blockReason": "SAFETY"}}))
    gemini.script(png(3), Reply(400, error(400, "INVALID_ARGUMENT", "no image")))
    items = [
        picture(0),
        picture(1),
        picture(2)._replace(load=unreadable),
        picture(3),
        picture(4)._replace(load=defect),
        picture(5),
    ]
    summary = caption_all(items, captioner, cache, concurrency=2)
    assert reasons(summary) == [
        None,
        Reason.BLOCKED,
        Reason.UNREADABLE,
        Reason.INVALID,
        Reason.CRASHED,
        None,
    ]
    assert "secret" not in str(summary.outcomes)
    assert summary.stopped is None


def test_what_is_refused_for_good_is_not_paid_for_again(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache
) -> None:
    gemini.script(png(1), *(Reply(body={"candidates": [{"finishReason": "SAFETY"}]}) for _ in range(2)))
    for known in (0, 1):
        summary = caption_all([picture(1)], captioner, cache)
        assert (reasons(summary), summary.known) == ([Reason.SAFETY], known)
    assert len(gemini.pictures()) == 1
    caption_all([picture(1)], captioner, cache, ask_failed_again=True)
    assert caption_all([picture(1)], captioner, cache, ask_failed_again=True).captioned == 1


@pytest.mark.parametrize("first", [spoken("{"), spoken(), described(object="Let me think about it")])
def test_a_bad_sample_is_drawn_again_once_and_both_are_paid_for(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache, first: dict[str, object]
) -> None:
    gemini.script(png(1), Reply(body=first))
    gemini.script(png(2), Reply(body=first), Reply(body=first))
    summary = caption_all([picture(1), picture(2)], captioner, cache, concurrency=1)
    assert [isinstance(each.answer, Captioned) for each in summary.outcomes] == [True, False]
    assert summary.usage.requests == len(gemini.pictures()) == 4
    assert caption_all([picture(2)], captioner, cache).captioned == 1, "a failure that may pass is not kept"


def test_all_threads_wait_when_one_is_told_to(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache
) -> None:
    gemini.script(png(0), *(Reply(429, quota("RequestsPerMinute", "0.3s")) for _ in range(3)))
    summary = caption_all([picture(number) for number in range(4)], captioner, cache, concurrency=2)
    assert summary.captioned == 4
    assert summary.seconds >= 0.9
    assert gemini.pictures().count(sha256(0)) == 4


def test_the_days_quota_ends_the_run_and_what_is_done_stays(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache
) -> None:
    gemini.script(png(2), Reply(429, quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "40s")))
    items = [picture(number) for number in range(5)]
    summary = caption_all(items, captioner, cache, concurrency=1)
    assert reasons(summary) == [None, None, Reason.QUOTA, Reason.NOT_ASKED, Reason.NOT_ASKED]
    assert summary.stopped is not None
    assert "used up" in summary.stopped
    assert all(each.answer.retryable for each in summary.failed if isinstance(each.answer, Failed))
    tomorrow = caption_all(items, captioner, cache, concurrency=1)
    assert (tomorrow.captioned, tomorrow.known) == (5, 2)


def test_a_wrong_key_is_tried_once(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache
) -> None:
    gemini.always = lambda sha256: Reply(400, error(400, "INVALID_ARGUMENT", "API key not valid."))
    summary = caption_all([picture(number) for number in range(5)], captioner, cache, concurrency=1)
    assert len(gemini.pictures()) == 1
    assert summary.stopped is not None
    assert "GEMINI_API_KEY" in summary.stopped


def test_a_service_that_is_down_is_not_asked_for_ever(
    gemini: GeminiServer, open_captioner: Callable[..., GeminiCaptioner], cache: CaptionCache
) -> None:
    gemini.always = lambda sha256: Reply(500, error(500, "INTERNAL"))
    items = [picture(number) for number in range(9)]
    summary = caption_all(
        items, open_captioner(attempts=1), cache, concurrency=1, limits=Limits(give_up_after=3)
    )
    assert reasons(summary) == [Reason.SERVER] * 3 + [Reason.NOT_ASKED] * 6
    assert summary.stopped is not None


def test_a_wait_of_hours_ends_the_run(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache
) -> None:
    gemini.always = lambda sha256: Reply(429, quota("RequestsPerHour", "3000s"))
    summary = caption_all([picture(1), picture(2)], captioner, cache, concurrency=1)
    assert reasons(summary) == [Reason.RATE, Reason.NOT_ASKED]


def test_the_days_limit_holds_over_runs(
    gemini: GeminiServer, captioner: GeminiCaptioner, tmp_path: Path
) -> None:
    items = [picture(number) for number in range(5)]
    for expected in (3, 3):
        with CaptionCache(tmp_path / "captions.db") as cache:
            summary = caption_all(items, captioner, cache, concurrency=2, limits=Limits(per_day=3))
        assert (summary.captioned, len(gemini.pictures())) == (expected, 3)
        assert summary.stopped == "the limit of 3 requests a day is reached"


def test_ctrl_c_keeps_what_is_done_and_finishes_what_is_under_way(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache
) -> None:
    items = [picture(number) for number in range(6)]

    def interrupt(progress: Progress) -> None:
        if progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        caption_all(items, captioner, cache, concurrency=2, on_progress=interrupt)
    done = caught.value.summary
    assert done.stopped == "interrupted"
    assert 2 <= done.captioned < 6
    stored = sum(cache.get(captioner.key(each)) is not None for each in items)
    assert stored == done.captioned == len(gemini.pictures())
    assert caption_all(items, captioner, cache).captioned == 6
    assert len(gemini.pictures()) == 6


def test_ctrl_c_while_nothing_is_answered(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache
) -> None:
    gemini.script(png(1), Reply(before=lambda: os.kill(os.getpid(), signal.SIGINT)))
    with pytest.raises(Interrupted) as caught:
        caption_all([picture(number) for number in range(9)], captioner, cache, concurrency=1)
    assert caught.value.summary.captioned == len(gemini.pictures()) == 2


def test_ctrl_c_between_an_answer_and_its_count_loses_neither(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, calls = Ledger.add, itertools.count()

    def interrupted(ledger: Ledger, key: Key, answer: Answer) -> None:
        if not next(calls):
            raise KeyboardInterrupt
        add(ledger, key, answer)

    monkeypatch.setattr(Ledger, "add", interrupted)
    with pytest.raises(Interrupted) as caught:
        caption_all([picture(number) for number in range(9)], captioner, cache, concurrency=2)
    assert caught.value.summary.captioned == len(gemini.pictures()) > 0
    assert caught.value.summary.usage.requests == len(gemini.pictures())


def test_ctrl_c_does_not_wait_for_a_service_that_says_later(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache
) -> None:
    def later() -> None:
        threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()

    gemini.script(png(0), Reply(429, quota("RequestsPerMinute", "100s"), before=later))
    with pytest.raises(Interrupted) as caught:
        caption_all([picture(0), picture(1)], captioner, cache, concurrency=2)
    assert caught.value.summary.seconds < 20
    assert Reason.RATE in reasons(caught.value.summary)


def test_a_defect_of_the_callers_ends_the_run_and_its_threads(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache
) -> None:
    def defect(progress: Progress) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        caption_all([picture(number) for number in range(50)], captioner, cache, 2, on_progress=defect)
    assert len(gemini.pictures()) < 50
    stored = sum(cache.get(captioner.key(picture(number))) is not None for number in range(50))
    assert stored == len(gemini.pictures())


def test_another_style_asks_nobody_again(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache
) -> None:
    caption_all([picture(1)], captioner, cache)
    answer = cache.get(captioner.key(picture(1)))
    assert isinstance(answer, Captioned)
    assert render(answer.fields).text.startswith("tsuki_advtr, grey and red curved iron sword")
    other = Look(trigger="inkstyle", template="{description} by {trigger}", tail="")
    assert render(answer.fields, other).text.endswith("by inkstyle")
    assert len(gemini.pictures()) == 1


def test_another_model_or_prompt_is_another_question(
    gemini: GeminiServer, open_captioner: Callable[..., GeminiCaptioner], cache: CaptionCache
) -> None:
    for model in ("gemini-3.5-flash-lite", "gemini-3.8-flash"):
        assert caption_all([picture(1)], open_captioner(model=model), cache).known == 0
    assert len(gemini.pictures()) == 2


def test_names_need_no_picture(cache: CaptionCache) -> None:
    def load() -> bytes:
        raise AssertionError("nobody looks at it")

    items = [
        ("a" * 64, load, "Old_Key_Icon.png"),
        ("a" * 64, load, "Rusty key 2.png"),
        ("b" * 64, load, "01.png"),
    ]
    summary = caption_all(items, NameCaptioner(), cache)
    names = [
        each.answer.fields.object if isinstance(each.answer, Captioned) else "" for each in summary.outcomes
    ]
    assert names == ["old key", "rusty key", ""]
    assert reasons(summary)[2] is Reason.NO_NAME


def test_nothing_to_do_and_nonsense(cache: CaptionCache) -> None:
    assert caption_all([], NameCaptioner(), cache).outcomes == ()
    with pytest.raises(InvalidInput):
        caption_all([], NameCaptioner(), cache, concurrency=0)
    for wrong in ({"per_minute": 0}, {"per_day": 0}, {"give_up_after": 0}):
        with pytest.raises(InvalidInput):
            Limits(**wrong)  # type: ignore[arg-type]


def test_a_cache_that_cannot_be_written_ends_the_run_with_a_reason(tmp_path: Path) -> None:
    class Broken(CaptionCache):
        def put(self, key: Key, answer: Answer) -> None:
            raise OSError(28, "No space left on device")

    with Broken(tmp_path / "captions.db") as cache:
        summary = caption_all([picture(1, "Key"), picture(2, "Bow")], NameCaptioner(), cache, concurrency=1)
    assert summary.stopped is not None
    assert "No space left" in summary.stopped


def test_a_file_that_is_no_cache(tmp_path: Path) -> None:
    file = tmp_path / "captions.db"
    file.write_bytes(b"a text, and no database at all, of more than a hundred bytes. " * 3)
    with pytest.raises(ConfigurationError, match="cannot be used"):
        CaptionCache(file)


def test_what_an_older_release_stored_and_this_one_refuses_is_asked_anew(cache: CaptionCache) -> None:
    key = Key("a" * 64, "p", "m")
    cache.put(key, Captioned(CaptionFields.model_construct(object="let me think")))
    assert cache.get(key) is None
    assert cache.get(Key("a" * 64, "p", "other")) is None
    assert isinstance(Picture("a" * 64, lambda: b"").name, str)
