"""The command line as a whole: every command is there and says how it is used."""

import subprocess
import sys

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
    "cutout",
    "submit",
    "batch",
    "jobs",
    "cancel",
    "dead",
    "doctor",
    "db",
    "keys",
    "data",
    "train",
    "models",
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


def test_the_command_line_starts_without_what_only_some_extras_bring() -> None:
    """A gateway's or a client's installation has none of these."""
    missing = ["numpy", "scipy", "torch", "diffusers", "transformers", "wandb", "selenium", "bs4"]
    missing += ["fastapi", "uvicorn", "sqlalchemy", "alembic", "matplotlib", "google.genai"]
    hide = f"import sys; sys.modules.update(dict.fromkeys({missing!r})); "
    done = subprocess.run(
        [sys.executable, "-c", f"{hide}from itemforge.cli.app import app; app(['--version'])"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "itemforge" in done.stdout, done.stderr
