"""F36, the worker's half: today's worker with a gateway of version 0.1, and with recorded messages."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from fake_engine import BASE
from worker_system import System

from contract.recorded import record
from gateways import Answer, ClaimingGateway, Row, SeedLikeGateway
from itemforge.imaging.png import read_recipe
from itemforge.styles.pack import Size, StylePack


class RecordedGateway(ClaimingGateway):
    """Takes what the recorded API document allows, and answers with the recorded fields alone."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        calls = [c for c in record("calls") if c["path"].startswith("/v1/worker/")]
        self._fields = {c["path"]: set(c["answer"][0]) for c in calls if c["answer"]}
        document = record("openapi")
        # A seed may be a decimal string too, as the recorded calls show.
        document["components"]["schemas"]["Image"]["properties"]["seed"] = {"type": ["integer", "string"]}
        self._checks = {
            path: jsonschema_rs.validator_for({**_body(document, path), "components": document["components"]})
            for path in self._fields
        }
        super().__init__()

    def answer(self, method: str, path: str, body: Any) -> Answer:
        if (check := self._checks.get(path)) and (errors := [e.message for e in check.iter_errors(body)]):
            self.refused += errors
            return 422, {"detail": "; ".join(errors)}
        code, answers = super().answer(method, path, body)
        known = self._fields.get(path)
        if code != 200 or known is None:
            return code, answers
        # What 0.1 had no field for it did not say; what it said without a value was null.
        return 200, [{key: answer.get(key, _DEFAULTS.get(key)) for key in known} for answer in answers]


_DEFAULTS = {"alone": False, "cancel": False, "lost": False, "watch": False}


def _body(document: dict[str, Any], path: str) -> dict[str, Any]:
    operation = document["paths"][path]["post"]
    schema: dict[str, Any] = operation["requestBody"]["content"]["application/json"]["schema"]
    return schema


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[System]:
    gateway = RecordedGateway()
    yield System(tmp_path / "home", gateway)
    gateway.close()


async def test_todays_worker_works_with_a_gateway_of_version_0_1(recorded: System) -> None:
    """F36: its calls are allowed there, and the recorded answers are enough for it."""
    ids = [recorded.gateway.add() for _ in range(6)]
    gateway = recorded.gateway
    assert isinstance(gateway, RecordedGateway)
    async with recorded.run(batch_size=2, breaker_after=100):
        for seed, request_id in enumerate(ids[:4]):
            await recorded.send(request_id, "slow apple", seed=seed, num_images=2)
        await recorded.send(ids[4], "bad prompt")
        await recorded.send(ids[5], "oom")
        for request_id in ids[:4]:
            await recorded.ended(request_id, "Completed")
        for request_id in ids[4:]:
            await recorded.ended(request_id, "Failed", within=40)
        await recorded.quiet()
    assert gateway.refused == []
    assert gateway.rows[ids[0]].progress, "heartbeats arrived"


@pytest.mark.parametrize("kind", [RecordedGateway, SeedLikeGateway])
async def test_messages_of_version_0_1_and_of_the_original_gateway_are_served(
    kind: type[RecordedGateway | SeedLikeGateway], tmp_path: Path
) -> None:
    """F36: with claims of version 0.1, and against a gateway that knows only /update_db."""
    messages = record("messages")
    bodies = [*messages["gateway"], messages["seed"]]
    gateway = kind()
    system = System(tmp_path / "home", gateway)
    _keep_style(system.home)
    for body in bodies:
        gateway.rows[body["request_id"]] = Row(body["params"])
    async with system.run():
        for body in bodies:
            await system.send_raw(json.dumps(body).encode())
        for body in bodies:
            await system.ended(body["request_id"], "Completed")
        await system.quiet()
    gateway.close()
    for body in bodies:
        params = body["params"]
        images = params.get("num_images", 1)
        for n in range(images):
            key = f"generated/{body['request_id']}{f'/{n}' if images > 1 else ''}.png"
            recipe = read_recipe(system.store.objects[key])
            assert (recipe.prompt, recipe.seed) == (params["prompt"], params["seed"] + n)
            assert (recipe.steps, recipe.guidance) == (
                params["num_inference_steps"],
                params["guidance_scale"],
            )


def _keep_style(home: Path) -> None:
    """The style that a recorded message names, as it would have been fetched before."""
    pack = StylePack(id="tale", version=3, base=BASE, size=Size(width=96, height=64, min=32, max=128))
    packs = home / "cache" / "packs"
    packs.mkdir(parents=True)
    (packs / "tale@3.toml").write_text(pack.to_toml())
