import asyncio
import re
import socket
from pathlib import Path

import httpx
import pytest
from rig import MemoryBroker, MemoryStore, app_for, settings_for
from typer.testing import CliRunner

from itemforge.cli.db import app as db_command
from itemforge.errors import ConfigurationError
from itemforge.gateway.listening import bind
from itemforge.gateway.server import Server, serving


def test_a_taken_port_is_one_clear_error() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"port {port}.*--port"):
            bind("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no such host", "203.0.113.7"])
def test_an_address_that_is_not_ours_is_one_clear_error(host: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot listen on"):
        bind(host, 0)


async def test_a_second_gateway_on_one_sqlite_does_not_start_and_says_why(tmp_path: Path) -> None:
    settings = settings_for(f"sqlite+aiosqlite:///{tmp_path / 'a.db'}", tmp_path)

    def app():  # type: ignore[no-untyped-def]
        return app_for(settings, MemoryBroker(), MemoryStore())

    async with serving(app(), bind("127.0.0.1", 0)):
        with pytest.raises(ConfigurationError, match="another ItemForge uses the database"):
            async with serving(app(), bind("127.0.0.1", 0)):
                pass
    async with serving(app(), bind("127.0.0.1", 0)):
        pass


async def test_the_whole_gateway_serves_the_shipped_styles(tmp_path: Path) -> None:
    settings = settings_for(f"sqlite+aiosqlite:///{tmp_path / 'a.db'}", tmp_path)
    listener = bind("127.0.0.1", 0)
    server = Server(settings, listener, MemoryBroker(), MemoryStore(), embedded=True)  # type: ignore[arg-type]
    async with server.running() as address, httpx.AsyncClient(base_url=address) as http:
        assert "plain@1" in [style["name"] for style in (await http.get("/v1/styles")).json()]
        answer = await http.post("/v1/generations", json={"prompt": "a red apple"})
        assert answer.status_code == 202, answer.text
        wrong = await http.post("/v1/generations", json={"prompt": "p", "style": "none"})
        assert wrong.status_code == 422
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=1)


async def test_a_gateway_open_to_others_needs_a_key(tmp_path: Path) -> None:
    settings = settings_for(f"sqlite+aiosqlite:///{tmp_path / 'a.db'}", tmp_path, host="0.0.0.0")
    server = Server(settings, bind("127.0.0.1", 0), MemoryBroker(), MemoryStore())  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="ITEMFORGE_ADMIN_KEY"):
        async with server.running():
            pass


def test_db_upgrade_and_current_work_on_the_database_of_the_environment(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    runner = CliRunner()
    before = runner.invoke(db_command, ["current"])
    assert before.exit_code == 0 and "run itemforge db upgrade" in before.output
    for _ in range(2):
        upgraded = runner.invoke(db_command, ["upgrade"])
        assert upgraded.exit_code == 0
        assert re.search(r"^the database is at revision \d{4}$", upgraded.output, re.MULTILINE)
    assert "the newest" in runner.invoke(db_command, ["current"]).output


async def test_no_task_outlives_the_server(tmp_path: Path) -> None:
    settings = settings_for(f"sqlite+aiosqlite:///{tmp_path / 'a.db'}", tmp_path)
    before = asyncio.all_tasks()
    async with serving(app_for(settings, MemoryBroker(), MemoryStore()), bind("127.0.0.1", 0)):
        pass
    left = {task for task in asyncio.all_tasks() - before if not task.done()}
    assert not left
