"""Prometheus, Alertmanager and node exporter as processes of the test, on the configuration that ships."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from services.process import Service, free_port, listens, unavailable

DEPLOY = Path(__file__).parents[2] / "deploy"


def find(*names: str) -> str:
    """A program under one of its names; Debian prefixes some."""
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        unavailable(f"no {names[0]}: install prometheus, prometheus-alertmanager, prometheus-node-exporter")
    return found


class Prometheus:
    def __init__(self, port: int) -> None:
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False, timeout=30)

    def __enter__(self) -> "Prometheus":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression gives now.

        Raises:
            AssertionError: Prometheus does not take it.
        """
        answer = self._http.get("query", params={"query": expression}).json()
        assert answer["status"] == "success", (expression, answer)
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def targets(self) -> dict[str, str]:
        """Health of every job's target."""
        active = self._http.get("targets").json()["data"]["activeTargets"]
        return {target["labels"]["job"]: target["health"] + target["lastError"] for target in active}

    def firing(self) -> set[str]:
        alerts = self._http.get("alerts").json()["data"]["alerts"]
        return {a["labels"]["alertname"] for a in alerts if a["state"] == "firing"}


@contextmanager
def prometheus(
    folder: Path, targets: Mapping[str, str], key: str, alertmanager: str | None = None, at_once: bool = False
) -> Iterator[Prometheus]:
    """Our prometheus.yml with every second for a quarter of a minute, and jobs at the addresses given; those
    without one are left out. `at_once`: alerts do not wait."""
    folder.mkdir(parents=True)
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"] = [job for job in config["scrape_configs"] if job["job_name"] in targets]
    assert {job["job_name"] for job in config["scrape_configs"]} == set(targets)
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
        job.pop("dns_sd_configs", None)  # names of containers
        if "authorization" in job:
            (folder / "key").write_text(key)
            job["authorization"]["credentials_file"] = str(folder / "key")
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = (
        [alertmanager] if alertmanager else []
    )
    for name in config["rule_files"]:
        rules = yaml.safe_load((DEPLOY / "prometheus" / name).read_text())
        for rule in (rule for group in rules["groups"] for rule in group["rules"]):
            if at_once and "for" in rule:
                rule["for"] = "0s"
        (folder / name).write_text(yaml.safe_dump(rules))
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        find("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    service = Service(command, folder / "log", cwd=folder)
    try:
        service.wait_until(lambda: _ready(port), within=60)
        with Prometheus(port) as tower:
            yield tower
    finally:
        service.stop()


@contextmanager
def alertmanager(folder: Path, webhook: str) -> Iterator[str]:
    """Our alertmanager.yml with another webhook, which does not wait; gives its address."""
    folder.mkdir(parents=True)
    config = yaml.safe_load((DEPLOY / "alertmanager/alertmanager.yml").read_text())
    config["route"] |= {"group_wait": "0s", "group_interval": "1s"}
    for receiver in config["receivers"]:
        for way in receiver["discord_configs"]:
            way["webhook_url"] = webhook
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        find("prometheus-alertmanager", "alertmanager"),
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    service = Service(command, folder / "log", cwd=folder)
    try:
        service.wait_until(lambda: _ready(port), within=60)
        yield f"127.0.0.1:{port}"
    finally:
        service.stop()


@contextmanager
def node_exporter(folder: Path) -> Iterator[str]:
    """Gives its address."""
    folder.mkdir(parents=True)
    port = free_port()
    command = [find("prometheus-node-exporter", "node_exporter"), f"--web.listen-address=127.0.0.1:{port}"]
    service = Service(command, folder / "log", cwd=folder)
    try:
        service.wait_until(lambda: listens(port), within=60)
        yield f"127.0.0.1:{port}"
    finally:
        service.stop()


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/-/ready", trust_env=False).is_success
    except httpx.HTTPError:
        return False
