"""`itemforge keys`: a key is printed once, and never shown again."""

import asyncio
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from databases import database_url
from itemforge import cli
from itemforge.cli.app import app
from itemforge.cli.keys import RoleName
from itemforge.errors import DatabaseUnavailable, InvalidInput
from itemforge.jobs import keys
from itemforge.jobs.database import Database
from itemforge.jobs.keys import Key, Role

__all__ = ["database_url"]


@pytest.fixture(autouse=True)
def environment(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["keys", *arguments])


def _create(*options: str, name: str = "ann", role: str = "user") -> str:
    made = _run("create", "--name", name, "--role", role, *options)
    assert made.exit_code == 0, made.output
    return made.stdout.strip()


def _found(url: str, secret: str) -> Key | None:
    async def find() -> Key | None:
        db = Database(url)
        try:
            return await keys.find(db, keys.digest(secret))
        finally:
            await db.close()

    return asyncio.run(find())


def test_a_key_alone_is_on_standard_output_so_that_it_can_be_piped(database_url: str) -> None:
    made = _run("create", "--name", "ann's laptop", "--role", "user", "--rate", "5", "--quota", "0")
    assert made.exit_code == 0
    assert re.fullmatch(r"itf_\S{43}\n", made.stdout)
    key = _found(database_url, made.stdout.strip())
    assert key is not None
    assert (key.name, key.role, key.rate, key.quota) == ("ann's laptop", Role.USER, 5, 0)
    assert f"itemforge keys revoke {key.id}" in made.stderr
    assert made.stdout.strip() not in made.stderr


def test_a_list_shows_every_key_but_no_secret(database_url: str) -> None:
    secrets = [_create(name=f"[bold]{role}", role=role) for role in ("user", "worker", "admin")]
    secrets.append(_create("--rate", "7", "--quota", "0", name="x" * 100))
    listed = _run("list")
    assert listed.exit_code == 0
    lines = [line.split() for line in listed.stdout.splitlines()]
    assert lines[0][:5] == ["id", "name", "role", "rate", "quota"]
    assert [line[1:5] for line in lines[1:4]] == [
        [f"[bold]{role}", role, "default", "default"] for role in ("user", "worker", "admin")
    ]
    assert lines[4][1:5] == ["x" * 100, "user", "7", "any"]
    for secret in secrets:
        key = _found(database_url, secret)
        assert key is not None and key.id in listed.stdout
        assert secret not in listed.output and keys.digest(secret) not in listed.output


def test_a_revoked_key_says_so(database_url: str) -> None:
    secret = _create()
    key = _found(database_url, secret)
    assert key is not None
    for _ in range(2):
        ended = _run("revoke", key.id)
        assert ended.exit_code == 0 and f"key {key.id} (user, ann) is revoked since 20" in ended.stdout
    now = _found(database_url, secret)
    assert now is not None and now.revoked_at is not None
    assert f"{now.revoked_at:%Y-%m-%d %H:%M:%S}Z" in _run("list").stdout


def test_an_id_that_is_not_there_is_a_clear_error() -> None:
    with pytest.raises(InvalidInput, match=r"no key with the id 'none'.*keys list"):
        CliRunner().invoke(app, ["keys", "revoke", "none"], catch_exceptions=False)


def test_a_database_that_is_away_is_a_clear_error_with_the_code_for_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody:hidden-word@127.0.0.1:1/none")
    with pytest.raises(DatabaseUnavailable):
        CliRunner().invoke(app, ["keys", "list"], catch_exceptions=False)
    monkeypatch.setattr("sys.argv", ["itemforge", "keys", "list"])
    with pytest.raises(SystemExit) as ended:
        cli.run()
    assert ended.value.code == cli.UNAVAILABLE
    said = capsys.readouterr()
    assert "the database cannot be reached" in said.err and "hidden-word" not in said.err + said.out


@pytest.mark.parametrize(
    "options", [(), ("--name", "a"), ("--name", "a", "--role", "king"), ("--role", "user")]
)
def test_name_and_role_are_needed(options: tuple[str, ...], tmp_path: Path) -> None:
    assert _run("create", *options).exit_code == 2


def test_the_commands_roles_are_the_databases() -> None:
    assert [role.value for role in RoleName] == [role.value for role in Role]
