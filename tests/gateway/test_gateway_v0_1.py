"""F36, the gateway's half: programs of version 0.1, as recorded, are served by the gateway of today."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from rig import MemoryBroker, MemoryStore, app_for, running, settings_for

from contract.recorded import Comparison, missing, record
from polling import eventually

#: What a clock says; everything else in a recorded answer is compared.
_TIMES = ("created_at", "updated_at", "finished_at")


def _document(tmp_path: Path) -> dict[str, Any]:
    settings = settings_for(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}", tmp_path)
    found: dict[str, Any] = app_for(settings, MemoryBroker(), MemoryStore()).openapi()
    return found


def test_todays_api_is_a_superset_of_version_0_1(tmp_path: Path) -> None:
    """F36: every path, method and field is there; nothing new is required."""
    assert Comparison(record("openapi"), _document(tmp_path)).problems == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: d["paths"].pop("/v1/stats"), "get /v1/stats: gone"),
        (lambda d: d["components"]["schemas"]["Claim"]["properties"].pop("lease_s"), ".lease_s: gone"),
        (
            lambda d: d["components"]["schemas"]["Outcome"]["enum"].append("later"),
            "may be ['later'] now",
        ),
        (
            lambda d: d["components"]["schemas"]["Heartbeat"]["required"].append("held"),
            ".held: required now",
        ),
        (
            lambda d: d["components"]["schemas"]["Stats"]["properties"].update(window={"type": "string"}),
            ".window: may be ['string'] now",
        ),
        (
            lambda d: d["components"]["schemas"]["ClaimRequest"]["properties"].update(
                worker_id={"type": "string", "maxLength": 20}
            ),
            ".worker_id: maxLength is 20 now",
        ),
    ],
)
def test_the_comparison_finds_what_would_break_an_old_program(change: Any, problem: str) -> None:
    document = copy.deepcopy(record("openapi"))
    change(document)
    problems = Comparison(record("openapi"), document).problems
    assert any(problem in each for each in problems), problems


async def test_recorded_calls_get_the_recorded_answers(database_url: str, tmp_path: Path) -> None:
    """F36: an old worker and an old client, call by call; answers may have more fields, never other ones."""
    now_for: dict[str, str] = {}  # what the recording drew by chance, and what today's gateway drew

    def todays(recorded: Any) -> Any:
        text = json.dumps(recorded)
        for old, new in now_for.items():
            text = text.replace(old, new)
        return json.loads(text)

    async with running(settings_for(database_url, tmp_path)) as rig:
        for call in record("calls"):
            body, path = todays(call["request"]), todays(call["path"])
            if call["name"] == "claim":
                await eventually(rig.all_published)  # as they were when it was recorded
            answer = await rig.http.request(call["method"], path, json=body)
            assert answer.status_code == call["status"], (call["name"], answer.text)
            said = answer.json()
            if call["name"].startswith(("submit", "seed generate")):
                for key in ("id", "request_id"):
                    if key in call["answer"]:
                        now_for[call["answer"][key]] = said[key]
                if "seed" not in call["request"] and "seed" in call["answer"]:
                    now_for[call["answer"]["seed"]] = said["seed"]
            expected = _timeless(todays(call["answer"]))
            assert missing(expected, _timeless(said)) == [], call["name"]


def _timeless(answer: Any) -> Any:
    if isinstance(answer, dict):
        return {key: "a time" if value and key in _TIMES else value for key, value in answer.items()}
    return answer
