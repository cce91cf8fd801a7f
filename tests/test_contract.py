"""What crosses a process border is read leniently where foreign programs write it, and never wrongly."""

import json
import uuid

import pytest
from pydantic import ValidationError

from itemforge.contract import (
    MAX_SEED,
    JobMessage,
    JobParams,
    Scheduler,
    Status,
    clean_text,
    object_key,
    readable_request_id,
)

ID = uuid.UUID("6f9619ff-8b86-4d01-b42d-00cf4fc964ff")


def _message(**params: object) -> bytes:
    return json.dumps({"request_id": str(ID), "params": {"prompt": "a key", **params}}).encode()


def test_a_foreign_message_gets_the_wires_defaults_and_unknown_keys_are_ignored() -> None:
    message = JobMessage.model_validate_json(_message(colour="red"))
    assert message.request_id == ID
    assert message.params == JobParams(
        prompt="a key",
        negative_prompt="",
        num_inference_steps=50,
        guidance_scale=7.5,
        seed=50,
        scheduler=Scheduler.DDIM,
        num_images=1,
    )


def test_a_message_that_uses_none_of_our_keys_reads_as_the_original_services_write_it() -> None:
    body = json.loads(JobMessage.model_validate_json(_message()).encode())
    assert set(body) == {"request_id", "params"}
    assert body["params"]["seed"] == 50
    assert {"prompt", "negative_prompt", "num_inference_steps", "guidance_scale", "seed"} <= set(
        body["params"]
    )
    assert "style" not in body["params"]


@pytest.mark.parametrize(
    "params",
    [
        {"num_inference_steps": 0},
        {"num_inference_steps": 151},
        {"num_inference_steps": True},
        {"num_inference_steps": 2.5},
        {"guidance_scale": -0.1},
        {"guidance_scale": 30.1},
        {"seed": -1},
        {"seed": MAX_SEED + 1},
        {"seed": MAX_SEED, "num_images": 2},
        {"width": 65},
        {"num_images": 0},
        {"num_images": 17},
        {"prompt": ""},
        {"prompt": "  "},
        {"prompt": "a\u0000b"},
        {"prompt": None},
        {"scheduler": "lms"},
        {"style": "../plain"},
    ],
)
def test_what_cannot_be_drawn_is_refused(params: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        JobMessage.model_validate_json(_message(**params))


@pytest.mark.parametrize("seed", ["7", 7])
def test_a_seed_is_an_integer_or_a_decimal_string(seed: object) -> None:
    assert JobMessage.model_validate_json(_message(seed=seed)).params.seed == 7


@pytest.mark.parametrize("word", ["processing", "PROCESSING", "Processing"])
def test_statuses_are_read_in_any_case(word: str) -> None:
    assert Status(word) is Status.PROCESSING


def test_an_unknown_status_is_an_error() -> None:
    with pytest.raises(ValueError, match="sleeping"):
        Status("sleeping")


def test_the_id_of_a_broken_message_is_found_where_there_is_one() -> None:
    assert readable_request_id(b'{"request_id": "%s", "params": 5}' % str(ID).encode()) == ID
    for body in (b"", b"[]", b"{}", b'{"request_id": 5}', b"\xff", b'{"request_id": "x"}'):
        assert readable_request_id(body) is None


def test_object_keys_are_the_wires() -> None:
    assert object_key(ID, 0, 1) == f"generated/{ID}.png"
    assert object_key(ID, 2, 4) == f"generated/{ID}/2.png"


def test_an_errors_text_is_made_fit_for_a_database() -> None:
    assert clean_text("a\x00b\ud800c") == "ab?c"
    assert len(clean_text("x" * 5000)) == 2000
