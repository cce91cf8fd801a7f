"""Batch jobs, through the real client: keys and no order, errors by line, and jobs that outlive their run."""

import json
from typing import Any

import pytest
from captioning_pictures import picture, sha256
from gemini_server import KEY, USAGE, GeminiServer, Reply, described, error, quota, spoken

from itemforge.dataset.captioning.cache import CaptionCache
from itemforge.dataset.captioning.costs import total
from itemforge.dataset.captioning.face import Captioned, Failed, Reason, Usage
from itemforge.dataset.captioning.gemini import GeminiCaptioner
from itemforge.dataset.captioning.gemini_batch import BatchOptions, caption_batch
from itemforge.dataset.captioning.gemini_request import VERSION, rest_request
from itemforge.dataset.captioning.ledger import Progress, Summary
from itemforge.dataset.captioning.run import caption_all

QUICK = BatchOptions(poll=0.01)


def named(line: dict[str, Any]) -> dict[str, Any]:
    """An answer that says whose it is."""
    return {"key": line["key"], "response": described(object=f"thing {line['key'][:6]}")}


def answers(summary: Summary) -> list[str | Reason]:
    return [
        each.answer.fields.object if isinstance(each.answer, Captioned) else each.answer.reason
        for each in summary.outcomes
    ]


def thing(number: int) -> str:
    return f"thing {sha256(number)[:6]}"


def test_answers_are_matched_by_key_whatever_their_order(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache
) -> None:
    gemini.job_lines = lambda lines: [named(line) for line in sorted(lines, key=lambda line: line["key"])]
    seen: list[Progress] = []
    items = [picture(number) for number in range(8)]
    summary = caption_batch(items, captioner, cache, QUICK, seen.append)
    assert answers(summary) == [thing(number) for number in range(8)]
    assert [each.done for each in seen] == list(range(1, 9))
    assert summary.usage == Usage(8, 8 * USAGE["promptTokenCount"], 8 * 100)
    assert total(summary.usage, captioner.model, batch=True).dollars == pytest.approx(
        (4800 * 0.30 + 800 * 2.50) / 2e6
    )
    assert (len(gemini.asked("upload")), len(gemini.asked("create"))) == (1, 1)
    assert cache.jobs(captioner.model, VERSION) == []
    assert caption_batch(items, captioner, cache, QUICK).known == 8
    assert caption_all(items, captioner, cache).known == 8, "the same answers as when asked one by one"
    assert len(gemini.asked("create")) == 1


def test_the_file_has_a_key_and_a_rest_request_on_each_line(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache
) -> None:
    caption_batch([picture(1, "Sword.png"), picture(2)], captioner, cache, QUICK)
    (uploaded,) = [data for name, data in gemini.files.items() if "results" not in name]
    first, second = (json.loads(line) for line in uploaded.splitlines())
    assert first == {
        "key": sha256(1),
        "request": rest_request(captioner.model, picture(1).load(), "Sword.png"),
    }
    assert second["key"] == sha256(2)
    assert set(first["request"]) == {"contents", "systemInstruction", "generationConfig"}
    (created,) = gemini.asked("create")
    assert created.key == KEY


def test_errors_by_line(gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache) -> None:
    def lines(sent: list[dict[str, Any]]) -> list[Any]:
        replies: list[Any] = [
            {"key": sent[0]["key"], "error": {"code": 3, "message": "bad image"}},
            {"key": sent[1]["key"], "error": {"code": 8, "message": "busy", "status": "RESOURCE_EXHAUSTED"}},
            {"key": sent[2]["key"], "error": {"code": 503, "message": f"away, {KEY}"}},
            {"key": sent[3]["key"], "response": {"promptFeedback": {"blockReason": "SAFETY"}}},
            {"key": sent[4]["key"], "response": spoken('{"object": "key')},
            '{"key": "' + sent[5]["key"] + '", "respon',
            {"key": "somebody else's", "response": described()},
            {"response": described()},
            {"key": sent[7]["key"]},
            {"key": sent[8]["key"], "response": described()},
            {"key": sent[8]["key"], "error": {"code": 13, "message": "said twice"}},
        ]
        return replies

    gemini.job_lines = lines
    items = [picture(number) for number in range(9)]
    summary = caption_batch(items, captioner, cache, QUICK)
    assert answers(summary) == [
        Reason.INVALID,
        Reason.RATE,
        Reason.SERVER,
        Reason.BLOCKED,
        Reason.TRUNCATED,
        Reason.SERVER,
        Reason.SERVER,
        Reason.MALFORMED,
        "curved iron sword",
    ]
    assert KEY not in str(summary)
    assert summary.stopped is None
    gemini.job_lines = lambda sent: [{"key": line["key"], "response": described()} for line in sent]
    again = caption_batch(items, captioner, cache, QUICK)
    assert again.captioned == 7, "what may succeed later was asked again, what never will was not"
    assert len(gemini.jobs["batches/2"]["lines"]) == 6


@pytest.mark.parametrize("state", ["BATCH_STATE_FAILED", "BATCH_STATE_EXPIRED", "BATCH_STATE_CANCELLED"])
def test_a_job_that_ends_without_answers(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache, state: str
) -> None:
    gemini.job_states = ["BATCH_STATE_RUNNING", state]
    summary = caption_batch([picture(1)], captioner, cache, QUICK)
    (outcome,) = summary.outcomes
    assert isinstance(outcome.answer, Failed)
    assert (outcome.answer.reason, outcome.answer.retryable) == (Reason.SERVER, True)
    gemini.job_states = ["BATCH_STATE_SUCCEEDED"]
    assert caption_batch([picture(1)], captioner, cache, QUICK).captioned == 1


def test_patience_ends_and_the_next_run_takes_the_answers(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache
) -> None:
    gemini.job_states = ["BATCH_STATE_RUNNING"]
    impatient = BatchOptions(poll=0.01, patience=0.0)
    assert (
        answers(caption_batch([picture(1), picture(2)], captioner, cache, impatient)) == [Reason.PENDING] * 2
    )
    gemini.jobs["batches/1"]["states"] = gemini.job_states = ["BATCH_STATE_SUCCEEDED"]
    summary = caption_batch([picture(1), picture(2), picture(3)], captioner, cache, QUICK)
    assert summary.captioned == 3
    assert [len(job["lines"]) for job in gemini.jobs.values()] == [2, 1]


def test_answers_of_pictures_that_the_next_run_does_not_ask_for_are_kept(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache
) -> None:
    caption_batch([picture(1), picture(2)], captioner, cache, BatchOptions(poll=0.01, patience=0.0))
    gemini.jobs["batches/1"]["states"] = ["BATCH_STATE_SUCCEEDED"]
    assert caption_batch([picture(2)], captioner, cache, QUICK).captioned == 1
    assert caption_batch([picture(1)], captioner, cache, QUICK).known == 1
    assert len(gemini.jobs) == 1


def test_a_job_whose_creator_never_learnt_of_it_is_found_again(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache
) -> None:
    gemini.route_replies["create"].append(Reply(cut=True))
    summary = caption_batch([picture(1)], captioner, cache, QUICK)
    assert summary.stopped is not None
    assert answers(summary) == [Reason.NOT_ASKED]
    assert caption_batch([picture(1)], captioner, cache, QUICK).captioned == 1
    assert len(gemini.asked("create")) == 1


@pytest.mark.parametrize("route", ["upload", "create", "look"])
@pytest.mark.parametrize(
    ("reply", "mark"),
    [
        (Reply(403, error(403, "PERMISSION_DENIED", KEY)), "GEMINI_API_KEY"),
        (Reply(429, quota("BatchRequestsPerDay")), "used up"),
    ],
)
def test_a_refusal_of_the_whole_ends_the_run_and_costs_nothing_twice(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache, route: str, reply: Reply, mark: str
) -> None:
    gemini.route_replies[route].append(reply)
    summary = caption_batch([picture(1)], captioner, cache, QUICK)
    assert summary.stopped is not None
    assert mark in summary.stopped
    assert KEY not in str(summary)
    assert caption_batch([picture(1)], captioner, cache, QUICK).captioned == 1
    assert len(gemini.jobs) == 1


def test_looks_that_fail_do_not_lose_the_job(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache
) -> None:
    busy = Reply(503, error(503, "UNAVAILABLE"))
    gemini.route_replies["look"] += [Reply(cut=True), *[busy] * 4, Reply(body=b"<html>")]
    gemini.route_replies["download"] += [Reply(cut=True)]
    assert caption_batch([picture(1)], captioner, cache, QUICK).captioned == 1
    assert len(gemini.jobs) == 1


def test_a_job_that_the_service_has_forgotten_is_sent_again(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache
) -> None:
    gemini.route_replies["look"].append(Reply(404, error(404, "NOT_FOUND")))
    assert answers(caption_batch([picture(1)], captioner, cache, QUICK)) == [Reason.SERVER]
    assert caption_batch([picture(1)], captioner, cache, QUICK).captioned == 1
    assert len(gemini.jobs) == 2


def test_a_defect_of_the_callers_is_its_own(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache
) -> None:
    def defect(progress: Progress) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        caption_batch([picture(1)], captioner, cache, QUICK, defect)
    assert caption_batch([picture(1)], captioner, cache, QUICK).known == 1


def test_many_pictures_are_several_jobs(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache
) -> None:
    options = BatchOptions(poll=0.01, max_bytes=6000)
    summary = caption_batch([picture(number) for number in range(7)], captioner, cache, options)
    assert summary.captioned == 7
    sizes = [len(job["lines"]) for job in gemini.jobs.values()]
    assert len(sizes) > 1
    assert sum(sizes) == 7


def test_pictures_that_cannot_be_loaded_are_left_out(
    gemini: GeminiServer, captioner: GeminiCaptioner, cache: CaptionCache
) -> None:
    def gone() -> bytes:
        raise FileNotFoundError(2, "No such file or directory")

    items = [picture(1)._replace(load=gone), picture(2)._replace(load=lambda: b""), picture(3)]
    summary = caption_batch(items, captioner, cache, QUICK)
    assert answers(summary) == [Reason.UNREADABLE, Reason.UNREADABLE, "curved iron sword"]
    assert len(gemini.jobs["batches/1"]["lines"]) == 1
    assert caption_batch(items[:2], captioner, cache, QUICK).captioned == 0
    assert len(gemini.jobs) == 1
