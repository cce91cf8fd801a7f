"""Our fields against ECS 8.11, and the files that bring the lines to Elasticsearch and Kibana."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import itemforge
from ecs_schema import DEPLOY, ECS, TEMPLATE, wrong
from itemforge.telemetry.ecs import FIELDS, NAMESPACE, field_of

SOURCE = Path(itemforge.__file__).parent
#: Keys that reach the log through `**`, where no reader of the source sees them.
BY_NAME = ("request_id", "attempt", "worker_id", "style", "status", "seconds", "rows", "row_ids", "prompt",
           "device", "dtype", "layout", "cores", "measured", "trace_id", "span_id", "negative_prompt")  # fmt: skip


def _keys() -> Iterator[tuple[str, str]]:
    """Every key of every log call, with its place."""
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "log"
            ):
                for keyword in node.keywords:
                    if keyword.arg and keyword.arg != "exc_info":
                        yield keyword.arg, f"{file.name}:{node.lineno}"
    for key in BY_NAME:
        yield key, "BY_NAME"


def test_every_key_of_a_log_call_is_the_schemas_or_declared_under_our_namespace() -> None:
    keys = dict(_keys())
    assert len(keys) > 60
    unknown = {
        f"{key} at {at} is written to {field_of(key)}"
        for key, at in keys.items()
        if field_of(key) not in (TEMPLATE if field_of(key).startswith(f"{NAMESPACE}.") else ECS)
    }
    assert not unknown
    assert len(ECS) > 1500 and ECS["event.duration"] == "long"


def test_nothing_is_declared_that_nobody_writes() -> None:
    written = {field_of(key) for key, _ in _keys()}
    ours = {field for field in TEMPLATE if field.startswith(f"{NAMESPACE}.")}
    assert ours - written == set()
    assert {field for field in FIELDS.values() if not field.startswith(NAMESPACE)} <= ECS.keys()


def test_the_template_gives_the_schemas_fields_the_schemas_types() -> None:
    theirs = {f: kind for f, kind in TEMPLATE.items() if not f.startswith(NAMESPACE) and f != "labels"}
    assert theirs == {field: ECS[field] for field in theirs}
    found = json.loads((DEPLOY / "filebeat/itemforge-template.json").read_text())
    policy = json.loads((DEPLOY / "filebeat/itemforge-ilm.json").read_text())
    assert found["data_stream"] == {}
    assert found["template"]["settings"]["index"]["lifecycle"]["name"] == "itemforge"
    assert {"hot", "delete"} <= policy["policy"]["phases"].keys()


def test_the_check_of_a_line_finds_what_is_wrong() -> None:
    line = {
        "@timestamp": "2026-11-25T00:00:00.000Z", "log.level": "info", "message": "m", "ecs": {"version": "8.11.0"},
        "service": {"name": "s"}, "event": {"dataset": "itemforge.worker", "duration": 5}, "labels": {"a": "b"},
        "itemforge": {"request": {"id": "x", "attempt": 1}},
    }  # fmt: skip
    assert wrong(line) == []
    bad: list[tuple[dict[str, Any], str]] = [
        ({"request_id": "x"}, "request_id is not declared"),
        ({"itemforge": {"nonsense": 1}}, "itemforge.nonsense is not declared"),
        ({"event": {"dataset": "d", "duration": 1.5}}, "event.duration is 1.5, and no long"),
        ({"labels": {"a": 1}}, "labels.a is no text"),
        ({"service": {}}, "service.name is missing"),
    ]
    for change, problem in bad:
        assert problem in wrong({**line, **change})


# ── Filebeat and Logstash ──────────────────────────────────────────────────────────────────────


def test_filebeat_takes_containers_and_files_as_ndjson_into_our_stream() -> None:
    config = yaml.safe_load((DEPLOY / "filebeat/filebeat.yml").read_text())
    containers, files = config["filebeat.inputs"]
    for each in (containers, files):
        assert each["type"] == "filestream" and each["id"] and each["paths"]
        (ndjson,) = [parser["ndjson"] for parser in each["parsers"] if "ndjson" in parser]
        assert ndjson["target"] == "" and ndjson["expand_keys"] and ndjson["overwrite_keys"]
    assert [next(iter(parser)) for parser in containers["parsers"]] == ["container", "ndjson"]
    assert containers["id"] != files["id"]
    for setting in ("setup.ilm.policy_file", "setup.template.json.path"):
        assert (DEPLOY / "filebeat" / config[setting].rsplit("/", 1)[1]).is_file()
    found = json.loads((DEPLOY / "filebeat/itemforge-template.json").read_text())
    pattern = config["setup.template.pattern"]
    assert found["index_patterns"] == [pattern]
    assert re.fullmatch(pattern.replace("*", ".*"), config["output.elasticsearch"]["index"])
    assert config["setup.ilm.policy_name"] == found["template"]["settings"]["index"]["lifecycle"]["name"]
    dropped = config["processors"][1]["drop_fields"]["fields"]
    assert not [field for field in dropped if field in TEMPLATE]
    assert not re.search(r"password: *[^$\s]", (DEPLOY / "filebeat/filebeat.yml").read_text())


def test_the_logstash_pipeline_is_whole_and_writes_into_the_same_stream() -> None:
    text = (DEPLOY / "logstash/itemforge.conf").read_text()
    code = re.sub(r'"[^"]*"|#[^\n]*|=~ /[^/]*/|!~ /[^/]*/', "", text)
    depth, sections = 0, []
    for word in re.findall(r"[{}]|[\w.]+", code):
        if word == "{":
            depth += 1
        elif word == "}":
            depth -= 1
        elif depth == 0:
            sections.append(word)
        assert depth >= 0
    assert (depth, sections) == (0, ["input", "filter", "output"])
    config = yaml.safe_load((DEPLOY / "filebeat/filebeat.yml").read_text())
    assert f'index => "{config["output.elasticsearch"]["index"]}"' in text
    assert "itemforge-template.json" in text


# ── Kibana ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def objects() -> dict[tuple[str, str], dict[str, Any]]:
    lines = (DEPLOY / "kibana/jobs.ndjson").read_text().splitlines()
    return {(found["type"], found["id"]): found for found in map(json.loads, lines)}


def test_every_reference_of_kibanas_objects_resolves(objects: dict[tuple[str, str], dict[str, Any]]) -> None:
    assert {kind for kind, _ in objects} == {"index-pattern", "search", "visualization", "dashboard"}
    for found in objects.values():
        for ref in found["references"]:
            assert (ref["type"], ref["id"]) in objects, ref
        names = {ref["name"] for ref in found["references"]}
        used = set(re.findall(r'"(?:indexRefName)": *"([^"]+)"', _texts(found)))
        assert used <= names, found["id"]
    dashboard = objects["dashboard", "itemforge-jobs-dashboard"]
    panels = json.loads(dashboard["attributes"]["panelsJSON"])
    wanted = {f"{panel['panelIndex']}:{panel['panelRefName']}" for panel in panels}
    assert wanted == {ref["name"] for ref in dashboard["references"]}
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridData"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 48
        taken |= cells


def test_kibanas_objects_ask_for_fields_that_lines_have(
    objects: dict[tuple[str, str], dict[str, Any]],
) -> None:
    asked: set[str] = set()
    counted: set[str] = set()
    events = set()
    for found in objects.values():
        about = found["attributes"]
        asked.update(about.get("columns", []), (field for field, _ in about.get("sort", [])))
        query = json.loads(about.get("kibanaSavedObjectMeta", {}).get("searchSourceJSON", "{}")).get(
            "query", {}
        )
        asked.update(re.findall(r"([\w.@]+) *:", query.get("query", "")))
        events.update(re.findall(r'"([a-z_]+)"', query.get("query", "")))
        aggregations = json.loads(about.get("visState", "{}")).get("aggs", [])
        counted.update(a["params"]["field"] for a in aggregations if "field" in a["params"])
    asked |= counted
    assert len(asked) > 12
    assert {field for field in asked if field not in TEMPLATE} == set()
    # Texts can be searched and not counted.
    assert {field for field in counted if TEMPLATE[field] in ("text", "match_only_text")} == set()
    source = "".join(file.read_text() for file in SOURCE.rglob("*.py"))
    levels = {"warning", "error", "critical", "failure"}
    assert {event for event in events - levels if f'"{event}"' not in source} == set()


def _texts(found: dict[str, Any]) -> str:
    return "\n".join(value for value in _strings(found["attributes"]))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each)
