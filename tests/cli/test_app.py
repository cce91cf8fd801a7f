"""The command line as a whole: every command is there and says how it is used."""

import pytest
from typer.testing import CliRunner

import itemforge
from itemforge.cli.app import app

COMMANDS = (
    "up",
    "gateway",
    "worker",
    "demo",
    "generate",
    "submit",
    "jobs",
    "cancel",
    "dead",
    "doctor",
    "db",
    "keys",
    "data",
    "train",
    "styles",
)


def test_the_version_is_the_packages() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output == f"itemforge {itemforge.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_how_it_is_used(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"Usage: root {command}" in result.output


def test_a_command_that_does_not_exist_is_an_error() -> None:
    assert CliRunner().invoke(app, ["draw"]).exit_code == 2
