"""Keys from the command line to the running system, over a real socket."""

import re
import time
from pathlib import Path

import httpx
import pytest
from commands import Command, run

from itemforge.client import Client
from itemforge.contract import Status
from itemforge.errors import GatewayRefused
from polling import wait_until


def _create(folder: Path, home: Path, role: str) -> tuple[str, str]:
    """Id and secret of a new key."""
    made = run(folder, "keys", "create", "--name", f"a {role}", "--role", role, ITEMFORGE_HOME=str(home))
    assert made.returncode == 0, made.stderr
    found = re.search(r"keys revoke (\w+)", made.stderr)
    assert found
    return found[1], made.stdout.strip()


def test_a_system_open_to_others_needs_a_key_and_draws_for_its_holder_until_it_is_revoked(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    arguments = ("up", "--host", "0.0.0.0", "--port", "0", "--home", str(home))
    refused = run(tmp_path, *arguments)
    assert refused.returncode == 64
    assert "itemforge keys create" in refused.stderr.splitlines()[-1]
    _create(tmp_path, home, "worker")
    key_id, secret = _create(tmp_path, home, "user")
    with Command(tmp_path, *arguments) as system:
        url = f"http://127.0.0.1:{system.address().rpartition(':')[2]}"
        with Client(url) as stranger, pytest.raises(GatewayRefused, match="401"):
            stranger.page()
        with Client(url, secret) as client:
            request = client.submit("a red apple", num_inference_steps=2)

            def ended() -> bool:
                return client.get(request.id).status.terminal

            wait_until(ended, 100, every=0.1, why="the embedded worker draws with its own key")
            assert client.get(request.id).status is Status.COMPLETED
        listed = run(tmp_path, "jobs", "--url", url, ITEMFORGE_API_KEY=secret, ITEMFORGE_HOME=str(home))
        assert request.id in listed.stdout
        revoked = run(tmp_path, "keys", "revoke", key_id, ITEMFORGE_HOME=str(home))
        assert revoked.returncode == 0, revoked.stderr
        began = time.monotonic()

        def refuses() -> bool:
            answer = httpx.get(f"{url}/v1/generations", headers={"X-API-Key": secret})
            return answer.status_code == 401

        wait_until(refuses, 30, every=0.2, why="the revoked key is refused")
        assert time.monotonic() - began < 30
        assert system.end() == 0
    told = system.log.read_text() + system.out.read_text() + refused.stderr
    assert secret not in told
