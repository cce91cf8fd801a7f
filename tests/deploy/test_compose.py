"""compose.yaml and .env.example: what the schema cannot see."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from dockerfile import ROOT

from itemforge.settings import ClientSettings, GatewaySettings, LogSettings, PullSettings, WorkerSettings

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
EXAMPLE = (ROOT / ".env.example").read_text()


def volumes(service: str) -> list[tuple[str, str]]:
    """What a container mounts, and where, with the variables' defaults."""
    written = [re.sub(r"^\$\{\w+:-(.*?)}", r"\1", each) for each in SERVICES[service].get("volumes", [])]
    return [(each.split(":")[0], each.split(":")[1]) for each in written]


#: Files of the repository that a container sees, by service.
MOUNTED = [(name, source) for name in SERVICES for source, _ in volumes(name) if source.startswith("./")]


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_starts_again_and_keeps_few_logs(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] in ("unless-stopped", "on-failure:5")
    options = {"max-size": "50m", "max-file": "5"}
    assert service["logging"] == {"driver": "json-file", "options": options}


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned_and_ports_stay_on_this_machine(name: str) -> None:
    image = re.sub(r"\$\{\w+:-(.*)}", r"\1", SERVICES[name]["image"])
    assert re.search(r":v?\d+\.\d+", image), image
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


def test_the_profiles_are_those_of_the_guide() -> None:
    profiles = {profile for service in SERVICES.values() for profile in service.get("profiles", [])}
    assert profiles == {"cpu", "gpu", "metrics", "traces", "logs"}
    always = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert always == {"gateway", "migrate", "rabbitmq", "rabbitmq-setup", "postgres", "gcs"}
    guide = (ROOT / "docs/operations.md").read_text()
    assert all(f"--profile {profile}" in guide or f"or {profile}" in guide for profile in profiles)


def test_services_and_volumes_that_are_named_are_there() -> None:
    for name, service in SERVICES.items():
        assert set(service.get("depends_on", {})) <= set(SERVICES)
        named = {source for source, _ in volumes(name) if source[0] not in "./"}
        assert named <= set(COMPOSE["volumes"])


@pytest.mark.parametrize("service, file", MOUNTED)
def test_mounted_files_are_there(service: str, file: str) -> None:
    assert (ROOT / file).exists()


def _inside(service: str, path: str) -> Path | None:
    """The file of the repository that a container sees at a path."""
    for source, place in volumes(service):
        if source.startswith("./") and Path(path).is_relative_to(place):
            return ROOT / source / Path(path).relative_to(place)
    return None


def _named_by_configurations() -> list[tuple[str, str]]:
    """Files that a container's command or configuration names, by service."""
    found = []
    for name in ("prometheus", "alertmanager"):
        found += [(name, w.split("=")[1]) for w in SERVICES[name]["command"] if "config.file" in w]
    prometheus = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    found += [("prometheus", f"/etc/prometheus/{name}") for name in prometheus["rule_files"]]
    found.append(("prometheus", "/etc/prometheus/targets"))
    grafana = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/itemforge.yml").read_text())
    found += [("grafana", f"{each['options']['path']}/fleet.json") for each in grafana["providers"]]
    found.append(("grafana", "/etc/grafana/provisioning/datasources/prometheus.yml"))
    filebeat = (ROOT / "deploy/filebeat/filebeat.yml").read_text()
    home = "/usr/share/filebeat"
    return found + [
        ("filebeat", f"{home}/{name}") for name in re.findall(r"\$\{path.config}/(\S+)", filebeat)
    ]


@pytest.mark.parametrize("service, path", _named_by_configurations())
def test_a_container_sees_what_its_configuration_names(service: str, path: str) -> None:
    seen = _inside(service, path)
    assert seen is not None and seen.exists()


def test_the_key_of_prometheus_lies_where_it_looks_and_never_in_the_repository() -> None:
    jobs = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    (file,) = [job["authorization"]["credentials_file"] for job in jobs if "authorization" in job]
    place = _inside("prometheus", file)
    assert place == ROOT / "deploy/prometheus/itemforge-key"
    assert place.name in (ROOT / ".gitignore").read_text().splitlines()
    assert f"> {place.relative_to(ROOT)}" in (ROOT / "docs/operations.md").read_text()


def test_each_process_gets_its_own_secrets_only() -> None:
    for worker in ("worker-cpu", "worker-gpu"):
        told = SERVICES[worker]["environment"]
        assert "DATABASE_URL" not in told and "ITEMFORGE_ADMIN_KEY" not in told
        assert told["RABBITMQ_DEFAULT_USER"] == "itemforge-worker"
    assert SERVICES["gateway"]["environment"]["RABBITMQ_DEFAULT_USER"] == "itemforge-gateway"


def test_the_example_has_every_secret_that_compose_asks_for() -> None:
    text = (ROOT / "compose.yaml").read_text()
    wanted = set(re.findall(r"\$\{(\w+):\?", text))
    assert wanted and all(f"#{name}=" in EXAMPLE for name in wanted)


def test_the_example_names_every_setting_once_with_its_default(tmp_path: Path) -> None:
    lines = re.findall(r"^#([A-Z][A-Z0-9_]*)=(.*)$", EXAMPLE, re.MULTILINE)
    names = [name for name, _ in lines]
    assert len(names) == len(set(names))
    file = tmp_path / "all.env"
    file.write_text("\n".join(f"{name}={value}" for name, value in lines))
    classes: tuple[type[LogSettings], ...] = (GatewaySettings, WorkerSettings, ClientSettings, PullSettings)
    for settings in classes:
        fields = settings.model_fields
        wanted = {
            str(field.validation_alias or f"ITEMFORGE_{name.upper()}") for name, field in fields.items()
        }
        assert wanted <= set(names)
        read, default = settings(_env_file=file), settings(_env_file=None)
        secrets = {"rabbitmq_pass"}  # RabbitMQ's own default is not shown
        assert read.model_dump(exclude=secrets) == default.model_dump(exclude=secrets)
