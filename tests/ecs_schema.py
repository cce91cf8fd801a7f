"""The committed list of the Elastic Common Schema, our index template, and what a line has to be."""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

DEPLOY = Path(__file__).parents[1] / "deploy"
#: Fields of ECS 8.11 and their Elasticsearch types.
ECS: dict[str, str] = {
    row[0]: row[1]
    for row in csv.reader(
        Path(__file__).with_name("telemetry").joinpath("ecs-8.11.csv").read_text().splitlines()
    )
    if not row[0].startswith("#")
}
_JSON = {
    "keyword": (str, list),
    "wildcard": (str,),
    "match_only_text": (str,),
    "text": (str,),
    "date": (str,),
    "long": (int,),
    "double": (int, float),
    "boolean": (bool,),
    "object": (dict, list),
}


def template() -> dict[str, str]:
    """Fields of the index template and their types."""
    found = json.loads((DEPLOY / "filebeat/itemforge-template.json").read_text())
    return dict(_flat(found["template"]["mappings"]["properties"], ""))


def _flat(properties: Mapping[str, Any], before: str) -> Iterator[tuple[str, str]]:
    for name, about in properties.items():
        if "properties" in about:
            yield from _flat(about["properties"], f"{before}{name}.")
        else:
            yield f"{before}{name}", about["type"]


def flat(line: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a line with dots in their names."""
    for name, value in line.items():
        field = f"{before}{name}"
        if isinstance(value, dict) and TEMPLATE.get(field) != "object" and field != "labels":
            yield from flat(value, f"{field}.")
        else:
            yield field, value


TEMPLATE = template()


def wrong(line: Mapping[str, Any]) -> list[str]:
    """What of a line is neither the schema's nor declared under our namespace, or of another type."""
    counts = Counter(field for field, _ in flat(line))
    problems = [f"{field} stands there twice" for field, count in counts.items() if count > 1]
    for field, value in flat(line):
        if field == "labels":
            problems += [f"{field}.{k} is no text" for k, v in value.items() if not isinstance(v, str)]
            continue
        kind = ECS.get(field) or (TEMPLATE.get(field) if field.startswith("itemforge.") else None)
        if kind is None:
            problems.append(f"{field} is not declared")
        elif not isinstance(value, _JSON[kind]) or (isinstance(value, bool) and kind != "boolean"):
            problems.append(f"{field} is {value!r}, and no {kind}")
    required = {"@timestamp", "message", "ecs.version", "log.level", "service.name", "event.dataset"}
    return problems + [f"{field} is missing" for field in required - dict(flat(line)).keys()]
