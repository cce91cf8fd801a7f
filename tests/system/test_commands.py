"""The commands of the command line against a running system, as a person uses them."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Command, run

from itemforge.imaging.png import read_recipe
from services.rabbitmq import Vhost


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    folder = tmp_path_factory.mktemp("system")
    with Command(folder, "up", "--port", "0", "--home", str(folder / "home")) as running:
        running.address()
        yield running


def test_submit_waits_and_writes_the_picture(system: Command, tmp_path: Path) -> None:
    ended = run(
        tmp_path, "submit", "a key", "--steps", "3", "--seed", "5", "--out", "deep/key.png",
        API_GATEWAY_URL=system.address(),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ["deep/key.png"]
    assert "Completed" in ended.stderr
    recipe = read_recipe((tmp_path / "deep" / "key.png").read_bytes())
    assert (recipe.seed, recipe.steps) == (5, 3)


def test_submit_writes_each_of_several_pictures(system: Command, tmp_path: Path) -> None:
    ended = run(
        tmp_path, "submit", "a key", "--steps", "2", "--num-images", "2", "--out", "key.png",
        "--url", system.address(),
    )  # fmt: skip
    assert ended.stdout.splitlines() == ["key-0.png", "key-1.png"], ended.stderr
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ended.stdout.split())


def test_jobs_lists_what_was_submitted_and_cancel_ends_it(system: Command, tmp_path: Path) -> None:
    url = {"API_GATEWAY_URL": system.address()}
    submitted = run(tmp_path, "submit", "a very slow panda", "--steps", "150", "--num-images", "8", **url)
    request_id = submitted.stdout.strip()
    assert uuid.UUID(request_id)
    assert request_id in run(tmp_path, "jobs", **url).stdout
    cancelled = run(tmp_path, "cancel", request_id, **url)
    assert cancelled.stdout.strip() == f"{request_id} Cancelled"
    lines = run(tmp_path, "jobs", "--status", "cancelled", "--json", **url).stdout.splitlines()
    assert request_id in [json.loads(line)["id"] for line in lines]
    again = run(tmp_path, "cancel", str(uuid.uuid4()), **url)
    assert again.returncode == 64
    assert "404" in again.stderr


def test_what_is_wrong_with_a_request_is_said_in_words(system: Command, tmp_path: Path) -> None:
    ended = run(tmp_path, "submit", "a key", "--steps", "1000", API_GATEWAY_URL=system.address())
    assert ended.returncode == 64
    assert "num_inference_steps" in ended.stderr
    assert "150" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_gateway_that_is_away_is_said_in_one_line(tmp_path: Path) -> None:
    ended = run(tmp_path, "jobs", "--url", "http://127.0.0.1:9")
    assert ended.returncode == 69
    (line,) = ended.stderr.splitlines()
    assert "127.0.0.1:9" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a key", "--style", "nowhere"), "nowhere"),
        (("a key", "--steps", "0"), "--steps"),
        (("--like", "no-such.png"), "no-such.png"),
    ],
)
def test_generate_says_what_is_wrong_in_one_line(
    arguments: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    ended = run(tmp_path, "generate", *arguments, "--out", "x.png")
    assert ended.returncode in (2, 64)
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "x.png").exists()


def test_wrong_settings_are_said_in_one_line(tmp_path: Path) -> None:
    ended = run(tmp_path, "worker", ITEMFORGE_LEASE="x", ITEMFORGE_BREAKER_AFTER="none")
    assert ended.returncode == 64
    (line,) = ended.stderr.splitlines()
    assert "ITEMFORGE_BREAKER_AFTER" in line


@pytest.mark.parametrize("command", ["worker", "gateway", "dead"])
def test_without_rabbitmq_a_command_says_what_to_set(command: str, tmp_path: Path) -> None:
    ended = run(tmp_path, command)
    assert ended.returncode == 64
    assert "RABBITMQ_HOST" in ended.stderr


def test_the_doctor_finds_a_sound_embedded_machine(system: Command, tmp_path: Path) -> None:
    ended = run(tmp_path, "doctor", API_GATEWAY_URL=system.address(), ITEMFORGE_HOME=str(tmp_path / "home"))
    assert ended.returncode == 0, ended.stdout
    for line in ("python", "device", "model: starter, 64x64", "gateway", "storage: wrote, read and deleted"):
        assert line in ended.stdout
    assert "BROKEN" not in ended.stdout


def test_the_doctor_names_what_is_broken_and_how_to_mend_it(tmp_path: Path) -> None:
    ended = run(
        tmp_path,
        "doctor",
        ITEMFORGE_MODEL="no-such-model",
        ITEMFORGE_AMQP_URL="amqp://user:quiet-password@127.0.0.1:9/",
        ITEMFORGE_PUBLISH_TIMEOUT="0.3",
        DATABASE_URL="postgresql://user:quiet-password@127.0.0.1:9/items",
    )
    assert ended.returncode == 1
    broken = [
        line.split(":")[0].split()[1] for line in ended.stdout.splitlines() if line.startswith("BROKEN")
    ]
    assert broken == ["model", "rabbitmq", "database"]
    assert "ITEMFORGE_MODEL" in ended.stdout
    assert "quiet-password" not in ended.stdout + ended.stderr


def test_the_doctor_and_dead_reach_a_real_broker(amqp_vhost: Vhost, tmp_path: Path) -> None:
    ended = run(tmp_path, "doctor", ITEMFORGE_AMQP_URL=amqp_vhost.url)
    assert "rabbitmq: connected; 0 messages wait" in ended.stdout
    assert (
        run(tmp_path, "dead", "--purge", ITEMFORGE_AMQP_URL=amqp_vhost.url).stdout
        == "0 messages thrown away\n"
    )
