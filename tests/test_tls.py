"""Certificates: whom a client believes, what the gateway shows, and what is said when one does not fit."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from itemforge.broker.rabbitmq import RabbitBroker
from itemforge.client import Client
from itemforge.contract import QUEUE
from itemforge.errors import BrokerUnavailable, ConfigurationError, GatewayUnavailable, RetryableError
from itemforge.settings import BrokerSettings, WorkerSettings, load
from itemforge.tls import check_server_files, client_context, own_certificate_only, refusal
from itemforge.worker.gateway_client import HttpCaller, find_gateway
from polling import eventually
from services.rabbitmq import RabbitNode, Vhost
from services.tls import Authority, Files


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@asynccontextmanager
async def https(files: Files) -> AsyncIterator[int]:
    """A server that answers an empty list to everything; gives its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = "HTTP/1.1 200 OK\r\nItemForge-Contract: 1\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]"
        writer.write(head.encode())
        await writer.drain()
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def first_contact(url: str, ca_file: Path | None) -> None:
    """As a worker makes it.

    Raises:
        GatewayUnavailable: it failed.
    """
    settings = load(WorkerSettings, api_gateway_url=url, ca_file=ca_file)
    caller = HttpCaller(settings)
    try:
        await find_gateway(caller, settings, "w")
    finally:
        await caller.close()


async def test_a_worker_believes_a_gateway_by_the_ca_file_alone(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    async with https(authority.issue("localhost")) as port:
        url = f"https://localhost:{port}"
        await first_contact(url, authority.ca_file)
        for ca_file in (None, other.ca_file):
            with pytest.raises(GatewayUnavailable, match=r"not trusted.*set ITEMFORGE_CA_FILE") as raised:
                await first_contact(url, ca_file)
            assert isinstance(raised.value, RetryableError)


async def test_a_certificate_for_another_name_is_refused(authority: Authority) -> None:
    async with https(authority.issue("gateway.example")) as port:
        with pytest.raises(
            GatewayUnavailable, match=r"mismatch.*address that the server's certificate names"
        ):
            await first_contact(f"https://localhost:{port}", authority.ca_file)


async def test_a_server_without_tls_is_named_as_such(authority: Authority) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(GatewayUnavailable, match="does the server speak TLS"):
            await first_contact(f"https://127.0.0.1:{port}", authority.ca_file)


async def test_the_client_believes_the_ca_file_too(authority: Authority) -> None:
    async with https(authority.issue("localhost")) as port:
        url = f"https://localhost:{port}"

        def ask(ca_file: Path | None) -> None:
            with Client(url, ca_file=ca_file) as client:
                client.styles()

        await asyncio.to_thread(ask, authority.ca_file)
        with pytest.raises(GatewayUnavailable, match="set ITEMFORGE_CA_FILE"):
            await asyncio.to_thread(ask, None)


def test_the_ca_file_is_added_to_what_is_trusted_already(authority: Authority) -> None:
    plain, added = (len(client_context(ca).get_ca_certs()) for ca in (None, authority.ca_file))
    assert plain > 10 and added == plain + 1
    context = client_context(authority.ca_file)
    assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_ca_file_that_is_none_is_a_clear_error(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"ITEMFORGE_CA_FILE.*ca\.pem"):
        client_context(path)


async def test_one_s_own_certificate_is_believed_under_any_name_and_no_other_of_its_ca(
    authority: Authority, tmp_path: Path
) -> None:
    ours, other = authority.issue("gateway.example"), authority.issue("other.example")
    chain = tmp_path / "chain.pem"
    chain.write_text(ours.certificate.read_text() + authority.ca_file.read_text())

    async def ask(files: Files) -> httpx.Response:
        trust = own_certificate_only(chain)
        async with https(files) as port, httpx.AsyncClient(verify=trust, trust_env=False) as http:
            return await http.get(f"https://127.0.0.1:{port}")

    assert (await ask(ours)).is_success
    with pytest.raises(httpx.ConnectError):
        await ask(other)


# ── What the gateway shows ──────────────────────────────────────────────────────────────────────


def test_server_files_come_together_or_not_at_all(authority: Authority, tmp_path: Path) -> None:
    files, other = authority.issue("a.example"), authority.issue("b.example")
    assert check_server_files(None, None) is False
    assert check_server_files(files.certificate, files.key) is True
    for certificate, key, said in (
        (files.certificate, None, "both ITEMFORGE_TLS_CERT_FILE and ITEMFORGE_TLS_KEY_FILE"),
        (None, files.key, "both ITEMFORGE_TLS_CERT_FILE and ITEMFORGE_TLS_KEY_FILE"),
        (tmp_path / "none.pem", files.key, r"ITEMFORGE_TLS_CERT_FILE.*none\.pem"),
        (files.certificate, tmp_path / "none.key", r"ITEMFORGE_TLS_KEY_FILE.*none\.key"),
        (files.certificate, other.key, "not a PEM certificate and its private key"),
        (files.key, files.certificate, "not a PEM certificate and its private key"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            check_server_files(certificate, key)


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_passphrase(
    authority: Authority, tmp_path: Path
) -> None:
    files, locked = authority.issue("a.example"), tmp_path / "locked.key"
    command = ["openssl", "pkey", "-aes256", "-passout", "pass:secret", "-in", files.key, "-out", locked]
    subprocess.run(command, check=True)
    with pytest.raises(ConfigurationError, match="encrypted"):
        check_server_files(files.certificate, locked)


# ── RabbitMQ ────────────────────────────────────────────────────────────────────────────────────


def broker_at(url: str, ca_file: Path | None, **settings: Any) -> RabbitBroker:
    return RabbitBroker(
        load(BrokerSettings, amqp_url_setting=url, ca_file=ca_file, reconnect_max=0.1, **settings)
    )


async def test_rabbitmq_is_reached_over_tls_with_a_private_ca(
    rabbit_node: RabbitNode, amqp_vhost: Vhost
) -> None:
    broker = broker_at(rabbit_node.tls_url(amqp_vhost.name), rabbit_node.authority.ca_file)
    await broker.start()
    try:
        await eventually(lambda: broker.connected, within=30)
        await broker.publish(QUEUE, b"{}")
        await eventually(lambda: broker.depth(QUEUE))
    finally:
        await broker.close()


@pytest.mark.parametrize("fault", ["no CA file", "another CA", "verification switched off by the address"])
async def test_rabbitmq_with_an_unknown_certificate_is_not_spoken_to_and_tried_again(
    rabbit_node: RabbitNode, amqp_vhost: Vhost, tmp_path: Path, fault: str
) -> None:
    ca_file = Authority(tmp_path / "other").ca_file if fault == "another CA" else None
    url = rabbit_node.tls_url(amqp_vhost.name)
    broker = broker_at(url + "?no_verify_ssl=1" if "address" in fault else url, ca_file)
    await broker.start()
    try:
        await eventually(lambda: broker.trouble, within=30)
        assert "not trusted" in (broker.trouble or "") and "ITEMFORGE_CA_FILE" in (broker.trouble or "")
        with pytest.raises(BrokerUnavailable, match="ITEMFORGE_CA_FILE"):
            await broker.publish(QUEUE, b"{}")
        assert not broker.connected
    finally:
        await broker.close()


async def test_rabbitmq_under_another_name_is_refused(rabbit_node: RabbitNode, amqp_vhost: Vhost) -> None:
    url = rabbit_node.tls_url(amqp_vhost.name, host="127.0.0.1")
    broker = broker_at(url, rabbit_node.authority.ca_file)
    await broker.start()
    try:
        trouble = await eventually(lambda: broker.trouble, within=30)
        assert "mismatch" in trouble and not broker.connected
    finally:
        await broker.close()


def test_an_error_that_is_its_own_cause_has_nothing_to_do_with_tls() -> None:
    """aio-pika raises such ones when a connection is reset during the handshake."""
    first, second = OSError("reset"), RuntimeError("closed")
    first.__context__, second.__context__ = second, first
    assert refusal(first) is None
