"""Settings come from the environment and `.env`, keep the names that operators know, and tell no secret."""

from pathlib import Path

import pytest

from itemforge.errors import ConfigurationError
from itemforge.settings import (
    BrokerSettings,
    ClientSettings,
    GatewaySettings,
    StorageSettings,
    WorkerSettings,
    load,
)


def test_the_defaults_need_nothing() -> None:
    gateway = load(GatewaySettings)
    assert gateway.host == "127.0.0.1"
    assert gateway.amqp_url is None
    assert gateway.database_url == f"sqlite+aiosqlite:///{Path.home()}/.local/share/itemforge/itemforge.db"
    assert gateway.storage_url == f"file://{Path.home()}/.local/share/itemforge/objects"
    assert load(WorkerSettings).quality == "exact"


def test_the_parts_of_an_address_are_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "RABBITMQ_HOST": "broker",
        "RABBITMQ_DEFAULT_USER": "us er",
        "RABBITMQ_DEFAULT_PASS": "p@ss/w:rd",
        "RABBITMQ_PORT": "5673",
        "RABBITMQ_VHOST": "/items",
    }.items():
        monkeypatch.setenv(name, value)
    assert load(BrokerSettings).amqp_url == "amqp://us%20er:p%40ss%2Fw%3Ard@broker:5673/%2Fitems"
    monkeypatch.setenv("ITEMFORGE_AMQP_URL", "amqps://other/")
    assert load(BrokerSettings).amqp_url == "amqps://other/"


def test_no_rabbitmq_is_a_clear_error() -> None:
    with pytest.raises(ConfigurationError, match="RABBITMQ_HOST"):
        load(BrokerSettings).require_amqp_url()


@pytest.mark.parametrize(
    ("given", "driver"),
    [
        ("postgresql://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgres://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql+psycopg2://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql+asyncpg://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("sqlite:////data/x.db", "sqlite+aiosqlite:////data/x.db"),
    ],
)
def test_database_addresses_get_the_async_driver(
    given: str, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", given)
    assert load(GatewaySettings).database_url == driver


def test_a_bucket_name_alone_is_enough_and_the_address_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCS_BUCKET_NAME", "items")
    assert load(StorageSettings).storage_url == "gs://items"
    monkeypatch.setenv("ITEMFORGE_STORAGE_URL", "gs://other/prefix")
    assert load(StorageSettings).storage_url == "gs://other/prefix"


def test_dot_env_is_read_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("API_GATEWAY_URL=http://from-file\nITEMFORGE_API_KEY=key-of-file\nOTHER=1\n")
    assert load(ClientSettings).api_gateway_url == "http://from-file"
    monkeypatch.setenv("API_GATEWAY_URL", "http://from-environment")
    assert load(ClientSettings).api_gateway_url == "http://from-environment"


def test_arguments_win_and_none_is_no_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITEMFORGE_PORT", "9000")
    assert load(GatewaySettings, port=1).port == 1
    assert load(GatewaySettings, port=None).port == 9000


def test_a_wrong_value_names_the_variable_and_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITEMFORGE_LEASE", "secret-by-mistake")
    monkeypatch.setenv("RABBITMQ_PORT", "many")
    with pytest.raises(ConfigurationError) as caught:
        load(GatewaySettings)
    assert "ITEMFORGE_LEASE" in str(caught.value)
    assert "RABBITMQ_PORT" in str(caught.value)
    assert "secret-by-mistake" not in str(caught.value)


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITEMFORGE_ADMIN_KEY", "hidden-key")
    monkeypatch.setenv("ITEMFORGE_AMQP_URL", "amqp://u:hidden-password@h/")
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:hidden-password@h/d")
    shown = repr(load(GatewaySettings)) + str(load(GatewaySettings))
    assert "hidden" not in shown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ITEMFORGE_AMQP_URL", "http://u:s3cret-word@h/"),
        ("ITEMFORGE_AMQP_URL", "amqp://"),
        ("ITEMFORGE_AMQP_URL", "amqp://u:s3cret-word@h:port/"),
        ("API_GATEWAY_URL", "localhost:8000"),
        ("API_GATEWAY_URL", "http://"),
        ("ITEMFORGE_API_KEY", "s3cret-word ö"),
        ("ITEMFORGE_WORKER_ID", "s3cret-word" * 20),
    ],
)
def test_a_wrong_value_is_named_and_not_shown(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name) as error:
        load(WorkerSettings)
    assert "s3cret-word" not in str(error.value)


def test_a_key_read_from_a_file_may_end_with_a_line_break(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITEMFORGE_API_KEY", "0123456789abcdef\n")
    key = load(WorkerSettings).api_key
    assert key is not None
    assert key.get_secret_value() == "0123456789abcdef"


@pytest.mark.parametrize(
    "process, name",
    [("gateway", "itemforge-gateway"), ("worker", "itemforge-worker"), ("itemforge", "itemforge")],
)
def test_a_process_is_called_by_its_own_name_unless_it_has_another(
    process: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load(WorkerSettings).service_name(process) == name
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    assert load(WorkerSettings).service_name(process) == "mine"
