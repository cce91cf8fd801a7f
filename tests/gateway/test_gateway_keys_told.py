"""What is told of keys: in the log, and by `itemforge doctor`."""

import json

import pytest
from pydantic import SecretStr
from rig import listening, running
from structlog.testing import capture_logs

from itemforge.cli.doctor import _gateway
from itemforge.jobs import keys
from itemforge.jobs.keys import Role
from itemforge.settings import GatewaySettings, WorkerSettings

ADMIN = "the bootstrap key of these tests"


def _keyed(settings: GatewaySettings) -> GatewaySettings:
    return settings.model_copy(update={"admin_key": SecretStr(ADMIN), "key_cache": 0.0})


async def test_the_log_names_the_key_of_a_refused_call_and_never_shows_it(settings: GatewaySettings) -> None:
    async with running(_keyed(settings)) as rig:
        key, secret = await keys.create(rig.gateway.db, "ann", Role.USER, rate=1)
        with capture_logs() as logs:
            answers = [
                await rig.http.request(method, path, headers={"Authorization": f"Bearer {secret}"}, json=body)
                for method, path, body in (
                    ("GET", "/v1/dead", None),
                    ("POST", "/v1/worker/claims", {}),
                    ("POST", "/v1/generations", {"prompt": "p"}),
                    ("POST", "/v1/generations", {"prompt": "p"}),
                    ("POST", "/v1/generations", {"prompt": secret, "style": "none"}),
                )
            ]
            answers.append(await rig.http.get("/v1/styles", headers={"X-API-Key": secret[:-1]}))
        assert [answer.status_code for answer in answers] == [403, 403, 202, 429, 422, 401]
        refused = [line for line in logs if line["event"] == "call_refused"]
        assert [(line["key"], line["role"], line["path"]) for line in refused] == [
            (key.id, "user", "/v1/dead"),
            (key.id, "user", "/v1/worker/claims"),
        ]
        told = json.dumps(logs, default=str) + "".join(answer.text for answer in answers)
        assert secret[:-1] not in told and ADMIN not in told


@pytest.mark.parametrize("role, ok", [(Role.WORKER, True), (Role.USER, True), (None, False)])
async def test_doctor_knows_a_good_key_of_any_role(
    settings: GatewaySettings, role: Role | None, ok: bool
) -> None:
    async with listening(_keyed(settings)) as rig:
        secret = "wrong"
        if role is not None:
            _, secret = await keys.create(rig.gateway.db, "w", role)
        worker = WorkerSettings(api_gateway_url=str(rig.http.base_url), api_key=SecretStr(secret))
        finding = await _gateway(worker, settings)
        assert finding.ok is ok, finding.text
        assert secret not in finding.text
