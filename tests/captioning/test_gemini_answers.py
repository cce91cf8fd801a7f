"""The real google-genai client against a local server: what is sent, and what comes of every kind of answer."""

import json
import logging
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from captioning_pictures import picture, png
from gemini_server import FIELDS, KEY, GeminiServer, Reply, described, error, quota, spoken
from pydantic import SecretStr

from itemforge.dataset.captioning.face import Captioned, Failed, Reason
from itemforge.dataset.captioning.gemini import GeminiCaptioner, GeminiOptions
from itemforge.dataset.captioning.gemini_request import VERSION, rest_request, thinking
from itemforge.errors import ConfigurationError


def failed(captioner: GeminiCaptioner) -> Failed:
    answer = captioner.caption(picture(1))
    assert isinstance(answer, Failed), answer
    return answer


def in_camel_case(sent: Any) -> Any:
    """The client writes some names with underscores, which the service takes too."""
    if isinstance(sent, list):
        return [in_camel_case(each) for each in sent]
    if not isinstance(sent, dict):
        return sent
    return {re.sub(r"_(.)", lambda m: m[1].upper(), name): in_camel_case(each) for name, each in sent.items()}


def test_fields_and_what_they_cost(captioner: GeminiCaptioner) -> None:
    answer = captioner.caption(picture(1))
    assert isinstance(answer, Captioned)
    assert answer.fields.object == "curved iron sword"
    assert answer.fields.parts == ("leather grip",)
    assert (answer.usage.requests, answer.usage.tokens_in, answer.usage.tokens_out) == (1, 600, 100)


def test_what_is_sent_is_what_a_batch_line_says(gemini: GeminiServer, captioner: GeminiCaptioner) -> None:
    captioner.caption(picture(1, "File:Iron_Sword.png"))
    (asked,) = gemini.asked("generate")
    assert asked.key == KEY
    sent = in_camel_case(asked.body)
    expected = rest_request(captioner.model, png(1), "File:Iron_Sword.png")
    assert sent == expected
    config = sent["generationConfig"]
    assert config["responseMimeType"] == "application/json"
    assert set(config["responseJsonSchema"]["required"]) == set(FIELDS)
    assert config["thinkingConfig"] == {"thinkingLevel": "MINIMAL"}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gemini-3.5-flash-lite", {"thinkingLevel": "MINIMAL"}),
        ("gemini-3.8-flash", {"thinkingLevel": "LOW"}),
        ("models/gemini-2.5-flash", {"thinkingBudget": 0}),
        ("gemini-2.5-pro", {"thinkingBudget": 128}),
        ("gemma-4", {}),
    ],
)
def test_as_little_thinking_as_the_model_allows(model: str, expected: dict[str, object]) -> None:
    assert thinking(model) == expected


def test_the_key_of_an_answer_has_prompt_and_model(captioner: GeminiCaptioner) -> None:
    key = captioner.key(picture(1))
    assert (key.picture, key.prompt, key.model) == (picture(1).sha256, VERSION, "gemini-3.5-flash-lite")


@pytest.mark.parametrize(
    ("body", "reason", "retryable"),
    [
        ({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}, Reason.BLOCKED, False),
        ({"promptFeedback": {"blockReason": "SAFETY"}, "candidates": []}, Reason.BLOCKED, False),
        ({"candidates": [{"finishReason": "SAFETY", "index": 0}]}, Reason.SAFETY, False),
        ({"candidates": [{"finishReason": "BLOCKLIST"}]}, Reason.SAFETY, False),
        ({"candidates": [{"finishReason": "RECITATION"}]}, Reason.RECITATION, True),
        (spoken('{"object": "iron sw', finish="MAX_TOKENS"), Reason.TRUNCATED, True),
        (spoken('{"object": "iron sw'), Reason.TRUNCATED, True),
        ({"candidates": [{"finishReason": "OTHER"}]}, Reason.MALFORMED, True),
        ({"candidates": []}, Reason.EMPTY, True),
        ({}, Reason.EMPTY, True),
        (spoken(), Reason.EMPTY, True),
        (spoken("", thoughts=("I see a sword.",)), Reason.EMPTY, True),
        (spoken("A fine sword."), Reason.MALFORMED, True),
        (spoken("I'm sorry, I can't help with that."), Reason.REFUSED, False),
        (described(object="I'm sorry, I cannot describe this"), Reason.REFUSED, False),
        (described(object="unknown"), Reason.NO_NAME, False),
        (spoken('["sword", "iron"]'), Reason.MALFORMED, True),
        (spoken('{"thing": "sword"}'), Reason.MALFORMED, True),
        (described(parts={"a": 1}), Reason.MALFORMED, True),
        (described(object="Okay, let me think about what the picture shows"), Reason.LEAKED, True),
        (described(view="side view\n\nWait, I should check the schema"), Reason.LEAKED, True),
        (described(object="This appears to be a sword"), Reason.LEAKED, True),
        (described(material="<think>metal?</think> iron"), Reason.LEAKED, True),
        (described(object="sword " * 40), Reason.LEAKED, True),
        (described(colours=["grey", 'red", "parts": ["blade"]']), Reason.LEAKED, True),
    ],
)
def test_answers_that_are_no_caption(
    gemini: GeminiServer, captioner: GeminiCaptioner, body: dict[str, object], reason: Reason, retryable: bool
) -> None:
    gemini.script(png(1), Reply(body=body))
    answer = failed(captioner)
    assert (answer.reason, answer.retryable, answer.stops) == (reason, retryable, False)
    assert answer.text and "\n" not in answer.text
    assert answer.usage.requests == 1


def test_thoughts_marked_as_such_and_a_fence_around_the_json_do_no_harm(
    gemini: GeminiServer, captioner: GeminiCaptioner
) -> None:
    text = f"```json\n{json.dumps(FIELDS)}\n```"
    gemini.script(png(1), Reply(body=spoken(text, thoughts=("It is a sword.",))))
    answer = captioner.caption(picture(1))
    assert isinstance(answer, Captioned)
    assert answer.fields.object == "curved iron sword"


@pytest.mark.parametrize(
    ("status", "body", "reason", "retryable", "stops"),
    [
        (400, error(400, "INVALID_ARGUMENT", "Unable to process input image"), Reason.INVALID, False, False),
        (413, error(413, "INVALID_ARGUMENT"), Reason.INVALID, False, False),
        (400, error(400, "INVALID_ARGUMENT", f"API key not valid: {KEY}"), Reason.SETUP, True, True),
        (400, error(400, "FAILED_PRECONDITION", "User location is not supported"), Reason.SETUP, True, True),
        (403, error(403, "PERMISSION_DENIED", f"key {KEY} is blocked"), Reason.SETUP, True, True),
        (404, error(404, "NOT_FOUND", "models/x is not found"), Reason.SETUP, True, True),
        (429, quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "36s"), Reason.QUOTA, True, True),
        (429, quota("GenerateRequestsPerMinutePerProject", "3s", "0"), Reason.QUOTA, True, True),
        (
            429,
            error(429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted."),
            Reason.QUOTA,
            True,
            True,
        ),
        (429, quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "3s"), Reason.RATE, True, False),
        (418, b"<html>a proxy's page</html>", Reason.INVALID, False, False),
        (200, b"<html>a proxy's page</html>", Reason.MALFORMED, True, False),
    ],
)
def test_refusals_of_the_service(
    gemini: GeminiServer,
    captioner: GeminiCaptioner,
    status: int,
    body: object,
    reason: Reason,
    retryable: bool,
    stops: bool,
) -> None:
    gemini.script(png(1), Reply(status, body))
    answer = failed(captioner)
    assert (answer.reason, answer.retryable, answer.stops) == (reason, retryable, stops)
    assert KEY not in answer.text
    assert len(gemini.pictures()) == 1, "the client tried again by itself"


@pytest.mark.parametrize(
    ("body", "headers", "wait"),
    [
        (quota("PerMinute", "36.429760048s"), {}, 36.429760048),
        (quota("PerMinute"), {"Retry-After": "7"}, 7.0),
        (quota("PerMinute"), {}, 15.0),
        (quota("PerMinute"), {"Retry-After": "nonsense"}, 15.0),
        (quota("PerMinute"), {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_the_wait_that_the_service_asks_for(
    gemini: GeminiServer, captioner: GeminiCaptioner, body: object, headers: dict[str, str], wait: float
) -> None:
    gemini.script(png(1), Reply(429, body, headers))
    assert failed(captioner).wait == pytest.approx(wait)


def test_5xx_is_tried_again_by_the_client_as_it_was_told_to(
    gemini: GeminiServer, captioner: GeminiCaptioner
) -> None:
    gemini.script(png(1), *(Reply(code, error(code, "UNAVAILABLE")) for code in (503, 500)))
    assert isinstance(captioner.caption(picture(1)), Captioned)
    assert len(gemini.pictures()) == 3


def test_5xx_that_goes_on(gemini: GeminiServer, captioner: GeminiCaptioner) -> None:
    gemini.always = lambda sha256: Reply(503, error(503, "UNAVAILABLE", "overloaded"))
    answer = failed(captioner)
    assert (answer.reason, answer.retryable, answer.wait) == (Reason.SERVER, True, None)
    assert "overloaded" in answer.text
    assert len(gemini.pictures()) == 3


def test_an_answer_that_does_not_come_in_time(
    gemini: GeminiServer, open_captioner: Callable[..., GeminiCaptioner]
) -> None:
    late = threading.Event()
    gemini.always = lambda sha256: Reply(before=lambda: late.wait(5))
    answer = failed(open_captioner(timeout=0.2, attempts=2))
    late.set()
    assert (answer.reason, answer.retryable) == (Reason.TIMEOUT, True)


def test_a_line_that_is_cut(gemini: GeminiServer, captioner: GeminiCaptioner) -> None:
    gemini.script(png(1), Reply(cut=True))
    answer = failed(captioner)
    assert (answer.reason, answer.retryable) == (Reason.CONNECTION, True)


def test_nobody_there(open_captioner: Callable[..., GeminiCaptioner]) -> None:
    answer = failed(open_captioner(url="http://127.0.0.1:9", attempts=1))
    assert (answer.reason, answer.retryable) == (Reason.CONNECTION, True)


def test_an_empty_picture_is_not_sent(gemini: GeminiServer, captioner: GeminiCaptioner) -> None:
    answer = captioner.caption(picture(1)._replace(load=lambda: b""))
    assert isinstance(answer, Failed)
    assert answer.reason is Reason.UNREADABLE
    assert gemini.pictures() == []


def test_the_key_is_in_no_log_whatever_the_service_echoes(
    gemini: GeminiServer, captioner: GeminiCaptioner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    echo = error(503, "UNAVAILABLE", f"the key {KEY} is fine, but we are not")
    gemini.always = lambda sha256: Reply(503, echo)
    answer = failed(captioner)
    assert "are not" in answer.text
    assert KEY not in answer.text + repr(answer) + repr(captioner) + repr(captioner.options)
    assert "are not" in caplog.text, "the client logs its retries; if it does not, this test sees nothing"
    assert KEY not in caplog.text


@pytest.mark.parametrize("key", [None, SecretStr(""), SecretStr("  "), SecretStr("kéy"), SecretStr("a\nb")])
def test_no_key(key: SecretStr | None) -> None:
    with pytest.raises(ConfigurationError, match="GEMINI_API_KEY"):
        GeminiCaptioner(key, GeminiOptions())


def test_the_environment_leads_it_nowhere_else(
    gemini: GeminiServer, monkeypatch: pytest.MonkeyPatch, open_captioner: Callable[..., GeminiCaptioner]
) -> None:
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    monkeypatch.setenv("GOOGLE_API_KEY", "another-key")
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "http://127.0.0.1:9")
    assert isinstance(open_captioner().caption(picture(1)), Captioned)
    assert gemini.asked("generate")[0].key == KEY
