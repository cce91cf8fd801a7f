"""A real Prometheus on a real gateway, worker, RabbitMQ and node exporter: dashboards show something, counters
agree with the rows, and no label tells who somebody is."""

import json
import math
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from towers import DEPLOY, Prometheus, find
from watched import ADMIN_KEY, PRICE, Watched, without_comments

from polling import wait_until

pytestmark = pytest.mark.timeout(900)

#: Panels that may be empty here, with the reason.
WITHOUT_SERIES: dict[str, str] = tomllib.loads((DEPLOY / "grafana/without_series.toml").read_text())
_VARIABLES = {"$__rate_interval": "10m", "$worker": ".*", "$host": ".*"}
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}|[0-9a-f]{32}")


def _dashboards() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((DEPLOY / "grafana").glob("*.json"))]


def _queries() -> Iterator[tuple[str, str]]:
    """Name and expression of every panel's query; and the metrics that variables are filled from."""
    for dashboard in _dashboards():
        name = dashboard["uid"].removeprefix("itemforge-")
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                expression = target["expr"]
                for variable, value in _VARIABLES.items():
                    expression = expression.replace(variable, value)
                assert "$" not in expression, f"{name}: a variable that the test does not know: {expression}"
                yield f"{name}: {panel['title']}", expression
        for variable in dashboard["templating"]["list"]:
            metric = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"])
            assert metric, variable
            yield f"{name}: variable {variable['name']}", f"group by ({metric[2]}) ({metric[1]})"


def _empty(prometheus: Prometheus) -> list[str]:
    def shows(expression: str) -> bool:
        return any(math.isfinite(float(series["value"][1])) for series in prometheus.query(expression))

    return [
        f"{name}: {expression}"
        for name, expression in _queries()
        if name not in WITHOUT_SERIES and not shows(expression)
    ]


def test_every_query_of_every_panel_returns_a_series_or_says_why_not(watched: Watched) -> None:
    names = {name for name, _ in _queries()}
    assert {name.partition(":")[0] for name in names} == {"fleet", "host", "job-flow", "worker"}
    assert set(WITHOUT_SERIES) <= names, "reasons for panels that are not there"
    assert all(len(reason) > 10 for reason in WITHOUT_SERIES.values())
    empty: list[str] = []

    def all_shown() -> bool:
        empty[:] = _empty(watched.prometheus)
        return not empty

    try:
        wait_until(all_shown, 60, every=1.0)
    except AssertionError:
        pytest.fail("no series for\n" + "\n".join(empty))
    assert set(watched.prometheus.targets().values()) == {"up"}, watched.prometheus.targets()


def _metrics_of_rules() -> set[str]:
    """What rules and alerts are made of: names with an underscore or colon that are no function."""
    found: set[str] = set()
    for file in ("rules.yml", "alerts.yml"):
        groups = yaml.safe_load((DEPLOY / "prometheus" / file).read_text())["groups"]
        for rule in (rule for group in groups for rule in group["rules"]):
            bare = re.sub(r'\{[^}]*\}|"[^"]*"|\[[^\]]*\]|by \([^)]*\)', "", rule["expr"])
            found |= {name for name in re.findall(r"\b[a-z][a-z0-9_:]*\b(?! *\()", bare)}
    return {name for name in found if "_" in name or ":" in name or name == "up"}


def test_every_metric_of_rules_and_alerts_is_told_by_somebody(watched: Watched) -> None:
    names = _metrics_of_rules()
    assert len(names) > 20 and {"up", "itemforge:backlog_seconds", "itemforge_broker_up"} <= names
    lost = {name for name in names if not watched.prometheus.query(f"last_over_time({name}[10m])")}
    # Shares of what did not happen have no value (rules.yml).
    assert lost <= {"itemforge:failure_ratio"}


def _figures(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Samples by name, and within by the values of their labels in the order of the labels' names."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def _true(figures: dict[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    return {labels: value for labels, value in figures.items() if value}


def test_the_counters_agree_with_the_rows(watched: Watched) -> None:
    rows = watched.rows.fetch(
        "SELECT id::text, lower(status) AS status, coalesce(split_part(style, '@', 1), 'none') AS style, attempt, "
        "(params ->> 'num_images')::int AS images, extract(epoch FROM finished_at - created_at)::float AS took "
        "FROM requests"
    )
    assert {row["id"]: row["status"] for row in rows} == {k: v.lower() for k, v in watched.ids.items()}
    ended: dict[tuple[str, ...], float] = {}
    images: dict[tuple[str, ...], float] = {}
    for row in rows:
        ended[row["status"], row["style"]] = ended.get((row["status"], row["style"]), 0) + 1
        if row["status"] == "completed":
            images[(row["style"],)] = images.get((row["style"],), 0) + row["images"]
    told = _figures(watched.gateway_text())
    assert _true(told["itemforge_jobs_total"]) == ended
    assert _true(told["itemforge_images_total"]) == images
    assert sum(told["itemforge_requests_total"].values()) == len(rows)
    claimed = [row for row in rows if row["attempt"] > 0]
    assert told["itemforge_wait_seconds_count"] == {(): len(claimed)}
    assert _true(told["itemforge_claims_total"])[("claimed",)] == sum(row["attempt"] for row in rows)
    for status in ("completed", "failed", "cancelled"):
        took = sum(row["took"] for row in rows if row["status"] == status)
        assert told["itemforge_job_seconds_sum"][(status,)] == pytest.approx(took, abs=0.01)
    states = watched.rows.fetch(
        "SELECT count(*) AS n FROM requests WHERE status IN ('Pending', 'Processing')"
    )
    assert states[0]["n"] == 0

    def none_open() -> bool:  # a look into the database may be shown for some seconds
        return sum(_figures(watched.gateway_text())["itemforge_open_requests"].values()) == 0

    wait_until(none_open, 60, every=0.5)

    def settled() -> dict[str, dict[tuple[str, ...], float]] | None:
        figures = _figures(watched.worker_text())
        return figures if figures["itemforge_worker_deliveries_total"][()] >= len(rows) else None

    worker = wait_until(settled, 30, every=0.2) or {}
    done = {
        labels[1:]: n
        for labels, n in worker["itemforge_worker_jobs_total"].items()
        if labels[0] == "completed" and n
    }
    assert done == {labels[1:]: n for labels, n in ended.items() if labels[0] == "completed"}
    assert _true(worker["itemforge_worker_images_total"]) == images
    assert worker["itemforge_worker_uploads_total"][("created",)] == sum(images.values())
    assert worker["itemforge_worker_dead_letters_total"] == {(): 1}
    wait_until(  # this look into the broker, too, may be some seconds old
        lambda: _figures(watched.gateway_text())["itemforge_queue_messages"][("dead",)] == 1, 30, every=0.5
    )
    assert worker["itemforge_worker_price_per_hour"] == {(): float(PRICE)}


def test_steps_are_counted_as_they_were_drawn(watched: Watched) -> None:
    worker = _figures(watched.worker_text())
    steps = worker["itemforge_worker_steps_total"][()]
    drawn = sum(
        row["n"]
        for row in watched.rows.fetch(
            "SELECT sum((params ->> 'num_images')::int * (params ->> 'num_inference_steps')::int) AS n "
            "FROM requests WHERE status = 'Completed'"
        )
    )
    # What the cancelled one had begun comes on top.
    assert drawn <= steps <= drawn + 100
    turns = worker["itemforge_worker_step_seconds_count"][()]
    assert turns == worker["itemforge_worker_batch_fill_ratio_count"][()]
    fill = worker["itemforge_worker_batch_fill_ratio_sum"][()]
    assert fill * worker["itemforge_worker_batch_size"][()] == pytest.approx(steps)
    stages = {labels[0] for labels in _true(worker["itemforge_worker_stage_seconds_count"])}
    assert stages >= {"claim", "merge", "encode", "unet", "decode", "upload", "report"}
    assert "other" not in stages


def test_promtool_finds_nothing_to_say_of_the_metrics(watched: Watched) -> None:
    for text in (watched.gateway_text(), watched.worker_text()):
        checked = subprocess.run(
            [find("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, timeout=60
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_no_label_carries_an_id(watched: Watched) -> None:
    for text in (watched.gateway_text(), watched.worker_text()):
        samples = without_comments(text)
        assert samples.count("\n") > 100
        assert not _UUID.search(samples)
        assert watched.worker_id not in samples
        for secret in (ADMIN_KEY, watched.key):
            assert secret not in samples


def test_the_gateways_figures_are_for_monitors_and_admins(watched: Watched) -> None:
    with httpx.Client(base_url=watched.gateway, timeout=60) as http:
        assert http.get("/metrics").status_code == 401
        monitor = {"Authorization": f"Bearer {watched.key}"}
        assert http.get("/v1/generations", headers=monitor).status_code == 403
        assert http.get("/metrics", headers={"X-API-Key": ADMIN_KEY}).status_code == 200


def test_routes_are_patterns_and_what_matches_none_is_other(watched: Watched) -> None:
    headers = {"X-API-Key": ADMIN_KEY}
    one = "/v1/generations/5f0c2b6e-8a51-4f0e-9d3b-2f6a1c7e9b10"
    for path in ("/v1/generations", one, "/nothing/to/see", "/wp-admin.php"):
        httpx.get(watched.gateway + path, headers=headers, timeout=60)
    told = _figures(watched.gateway_text())["itemforge_http_requests_total"]
    routes = {labels[1] for labels in told}
    assert {"/v1/generations", "/v1/generations/{id}", "other"} <= {
        r.replace("request_id", "id") for r in routes
    }
    assert told["GET", "other", "404"] == 2


def test_the_images_cost_what_the_price_says(watched: Watched) -> None:
    cost, hourly = (
        float(watched.prometheus.query(f"itemforge:{name}")[0]["value"][1])
        for name in ("cost_per_image", "images_per_hour")
    )
    assert cost * hourly == pytest.approx(float(PRICE), rel=0.2)


def test_dashboards_are_what_grafana_imports(deploy: Path) -> None:
    source = (deploy / "grafana/provisioning/datasources/prometheus.yml").read_text()
    for dashboard in _dashboards():
        assert {"uid", "title", "schemaVersion", "panels", "templating", "time"} <= dashboard.keys()
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(ids)) == len(ids) > 10
        placed = [panel["gridPos"] for panel in dashboard["panels"]]
        assert all(p["x"] + p["w"] <= 24 for p in placed)
        for panel in dashboard["panels"]:
            assert panel["title"] and panel["fieldConfig"]["defaults"]["unit"]
            for target in panel["targets"]:
                assert f"uid: {target['datasource']['uid']}\n" in source
