"""Where webhooks may not go, at creation and at every send, whatever name or notation leads there."""

import ipaddress
import ssl
from pathlib import Path

import pytest
from receiver import receiving
from rig import Rig, running, settings_for

from itemforge.addresses import is_public
from itemforge.errors import ConfigurationError
from itemforge.gateway.guard import AddressRefused, Guard
from itemforge.settings import GatewaySettings, load
from polling import eventually
from services.tls import Authority


def _settings(tmp_path: Path, **more: object) -> GatewaySettings:
    quick = {"retry_scale": 1e-6, "webhook_timeout": 5.0, **more}
    return settings_for(f"sqlite+aiosqlite:///{tmp_path / 'itemforge.db'}", tmp_path, **quick)


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/", "https://localhost/", "https://2130706433/", "https://0x7f.1/", "https://0177.0.0.1/",
        "https://10.1.2.3/", "https://172.31.0.1:8443/x", "https://192.168.1.1/", "https://169.254.169.254/latest/meta-data",
        "https://100.100.100.200/", "https://168.63.129.16/", "https://0.0.0.0/", "https://255.255.255.255/",
        "https://224.0.0.1/", "https://[::1]/", "https://[::]/", "https://[fe80::1]/", "https://[fd00:ec2::254]/",
        "https://[::ffff:127.0.0.1]/", "https://[::ffff:a9fe:a9fe]/", "https://[64:ff9b::a9fe:a9fe]/",
        "https://[64:ff9b:1::1]/", "https://[2002:7f00:1::]/", "https://[ff02::1]/", "https://192.0.0.192/",
        "https://[3fff::1]/", "https://[5f00::1]/", "https://[2001:10::1]/", "https://192.88.99.1/",
    ],
)  # fmt: skip
async def test_addresses_of_no_public_host_are_refused(tmp_path: Path, url: str) -> None:
    guard = Guard(_settings(tmp_path))
    with pytest.raises(AddressRefused, match=r"public|such as"):
        await guard.permitted(guard.read(url).raw_host.decode(), 443)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "168.63.129.17"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


WRONG = [
    ("http://1.1.1.1/", "must begin with https://"),
    ("ftp://1.1.1.1/", "must begin with https://"),
    ("file:///etc/passwd", "must begin with https://"),
    ("1.1.1.1/hook", "must begin with https://"),
    ("https://user:hush@1.1.1.1/", "no user, no password"),
    ("https://1.1.1.1/#x", "no fragment"),
    ("https://1.1.1.1/\\@10.0.0.1", "no user"),
    ("https://1.1.1.1:99999/", "such as https://example.com/hook"),
    ("https://[::1", "such as https://example.com/hook"),
    ("https://1.1.1.1/" + "x" * 1990, "at most 2000"),
    ("https://127.0.0.1/", "does not; the gateway's operator can allow it"),
]


async def test_what_is_wrong_with_an_address_is_said(tmp_path: Path) -> None:
    async with running(_settings(tmp_path)) as rig:
        for url, advice in WRONG:
            for path, body in (
                ("/v1/webhooks", {"url": url}),
                ("/v1/generations", {"prompt": "p", "webhook": url}),
            ):
                answer = await rig.http.post(path, json=body)
                assert answer.status_code == 422, answer.text
                (error,) = answer.json()["errors"]
                assert error["field"] in body and advice in error["message"], error
                assert "hush" not in answer.text
        assert (await rig.http.get("/v1/generations")).json()["items"] == [], "nothing was taken in"


async def _test_event(rig: Rig, url: str) -> dict[str, object]:
    """Have `url` sent a test, and the delivery once it ended."""
    made = await rig.http.post("/v1/webhooks", json={"url": url})
    assert made.status_code == 201, made.text
    path = f"/v1/webhooks/{made.json()['id']}"
    await rig.http.post(f"{path}/test")

    async def ended() -> dict[str, object] | None:
        (found,) = (await rig.http.get(f"{path}/deliveries")).json()["items"]
        return dict(found) if found["state"] != "waiting" else None

    found = await eventually(ended, 30)
    assert found is not None
    return found


async def test_a_name_that_leads_elsewhere_when_it_is_sent_leads_nowhere(tmp_path: Path) -> None:
    """DNS rebinding: each try is looked up once, and what was looked at is what is connected to."""
    settings = _settings(tmp_path, webhook_http=True, webhook_networks="127.0.0.2")
    async with running(settings) as rig, receiving() as receiver:
        asked: list[str] = []

        async def turning(host: str, port: int) -> list[str]:
            asked.append(host)
            return ["127.0.0.2"] if len(asked) == 1 else ["127.0.0.1"]

        rig.gateway.guard.resolve = turning
        port = receiver.url.rpartition(":")[2]
        delivery = await _test_event(rig, f"http://rebinding.example:{port}/")
        assert delivery["state"] == "failed" and "public address" in str(delivery["error"])
        assert "127.0.0.1" not in str(delivery["error"]), "nothing is told of our own network"
        assert receiver.connections == 0
        assert len(asked) == 1 + 8, "once at creation and once for each try"


async def test_a_mixed_answer_is_connected_to_where_it_is_allowed(tmp_path: Path) -> None:
    settings = _settings(tmp_path, webhook_http=True, webhook_networks="127.0.0.1")
    async with running(settings) as rig, receiving() as receiver:

        async def mixed(host: str, port: int) -> list[str]:
            return ["10.255.255.1", "::ffff:127.0.0.1", "127.0.0.1"]

        rig.gateway.guard.resolve = mixed
        port = receiver.url.rpartition(":")[2]
        delivery = await _test_event(rig, f"http://inside.example:{port}/a%20b?q=1")
        assert delivery["state"] == "delivered", delivery
        assert receiver.calls[0].path == "/a%20b?q=1"
        assert receiver.calls[0].headers["host"] == f"inside.example:{port}"


async def test_a_setting_that_was_taken_back_holds_for_what_waits(tmp_path: Path) -> None:
    async with running(_settings(tmp_path, webhook_networks="127.0.0.0/8", webhook_http=True)) as rig:
        made = await rig.http.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/"})
        rig.gateway.guard = Guard(_settings(tmp_path))
        await rig.http.post(f"/v1/webhooks/{made.json()['id']}/test")

        async def failed() -> bool:
            (found,) = (await rig.http.get("/v1/webhooks/deliveries")).json()["items"]
            return found["state"] == "failed" and "https://" in found["error"]

        await eventually(failed, 30)


async def test_over_tls_the_certificate_must_fit_the_name_and_not_the_address(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    contexts = []
    for name in ("hook.example", "other.example"):
        files = authority.issue(name)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.certificate, files.key)
        contexts.append(context)
    settings = _settings(tmp_path, webhook_networks="127.0.0.1", ca_file=authority.ca_file)
    async with running(settings) as rig, receiving(contexts[0]) as right, receiving(contexts[1]) as wrong:

        async def here(host: str, port: int) -> list[str]:
            return ["127.0.0.1"]

        rig.gateway.guard.resolve = here
        ports = [receiver.url.rpartition(":")[2] for receiver in (right, wrong)]
        delivery = await _test_event(rig, f"https://hook.example:{ports[0]}/")
        assert delivery["state"] == "delivered", delivery
        delivery = await _test_event(rig, f"https://hook.example:{ports[1]}/")
        assert delivery["state"] == "failed" and "certificate" in str(delivery["error"]).lower()
        assert wrong.calls == []


def test_networks_that_are_none_are_refused_with_an_example() -> None:
    with pytest.raises(ConfigurationError, match=r"WEBHOOK_NETWORKS.*such as 10\.0\.0\.0/8"):
        load(GatewaySettings, webhook_networks="10.0.0.0/8, everything")
