"""What ships for Prometheus and Alertmanager is taken by them, and every alert fires when it should."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from towers import find


def _checked(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", ["prometheus.yml", "kubernetes.yml"])
def test_prometheus_takes_its_configuration_and_rules(deploy: Path, tmp_path: Path, name: str) -> None:
    folder = deploy / "prometheus"
    # The key is the operator's to make; everything else has to be there.
    key = tmp_path / "key"
    key.write_text("secret")
    config = yaml.safe_load((folder / name).read_text())
    config["rule_files"] = [str(folder / rules) for rules in config["rule_files"]]
    for job in config["scrape_configs"]:
        job.pop("kubernetes_sd_configs", None)  # Debian's Prometheus is built without it
        if "authorization" in job:
            job["authorization"]["credentials_file"] = str(key)
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    _checked(find("promtool"), "check", "config", "--lint-fatal", str(tmp_path / "prometheus.yml"))


def test_every_alert_is_quiet_in_health_and_fires_in_need(deploy: Path) -> None:
    assert "SUCCESS" in _checked(
        find("promtool"), "test", "rules", str(deploy / "prometheus/alerts_test.yml")
    )
    alerts = {rule["alert"] for rule in _alerts(deploy)}
    tests = yaml.safe_load((deploy / "prometheus/alerts_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test.get("alert_rule_test", ())]
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == alerts
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == alerts


def test_every_alert_has_its_line_in_the_guide(deploy: Path) -> None:
    guide = (deploy.parent / "docs/metrics.md").read_text()
    headings = {heading.lower() for heading in re.findall(r"^### (\w+)$", guide, re.MULTILINE)}
    for rule in _alerts(deploy):
        assert rule["annotations"]["runbook"] == f"docs/metrics.md#{rule['alert'].lower()}"
        assert rule["alert"].lower() in headings
    assert headings == {rule["alert"].lower() for rule in _alerts(deploy)}


def test_alertmanager_takes_its_configuration(deploy: Path) -> None:
    said = _checked(find("amtool"), "check-config", str(deploy / "alertmanager/alertmanager.yml"))
    assert "1 receivers" in said


def _alerts(deploy: Path) -> list[dict[str, dict[str, str]]]:
    groups = yaml.safe_load((deploy / "prometheus/alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]
