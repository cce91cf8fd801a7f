"""The records of `v0_1`, and what it means to still speak as they do."""

import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).with_name("v0_1")

Schema = dict[str, Any]


def record(name: str) -> Any:
    """`openapi`, `calls`, `messages` or `database`."""
    return json.loads((_FOLDER / f"{name}.json").read_text())


def missing(old: Any, new: Any, at: str = "") -> list[str]:
    """Where `new` lacks what `old` has, or says something else. Keys may be added, never lost."""
    if isinstance(old, dict):
        if not isinstance(new, dict):
            return [f"{at}: {new!r} is no object"]
        gone = [f"{at}.{key}: gone" for key in old if key not in new]
        return gone + [w for key in old if key in new for w in missing(old[key], new[key], f"{at}.{key}")]
    if isinstance(old, list):
        if not isinstance(new, list) or len(new) != len(old):
            return [f"{at}: {new!r} instead of {old!r}"]
        return [w for n, each in enumerate(old) for w in missing(each, new[n], f"{at}[{n}]")]
    return [] if old == new else [f"{at}: {new!r} instead of {old!r}"]


class Comparison:
    """Two OpenAPI documents; `problems` is what breaks a program that was written for the old one."""

    def __init__(self, old: Schema, new: Schema) -> None:
        self._old, self._new = old, new
        self.problems: list[str] = []
        for path, methods in old["paths"].items():
            for method, operation in methods.items():
                now = new["paths"].get(path, {}).get(method)
                if now is None:
                    self.problems.append(f"{method} {path}: gone")
                else:
                    self._operation(f"{method} {path}", operation, now)

    def _operation(self, at: str, old: Schema, new: Schema) -> None:
        known = {(p["in"], p["name"]): p for p in old.get("parameters", [])}
        today = {(p["in"], p["name"]): p for p in new.get("parameters", [])}
        for key, parameter in known.items():
            if key not in today:
                self.problems.append(f"{at}: parameter {key} gone")
            else:
                self._request(f"{at} {key}", parameter["schema"], today[key]["schema"])
        for key, parameter in today.items():
            if parameter.get("required") and not known.get(key, {}).get("required"):
                self.problems.append(f"{at}: parameter {key} is required now")
        if "requestBody" in old:
            self._request(f"{at} body", _content(old["requestBody"]), _content(new.get("requestBody", {})))
        elif new.get("requestBody", {}).get("required"):
            self.problems.append(f"{at}: a body is required now")
        for status, answer in old["responses"].items():
            if status not in new["responses"]:
                self.problems.append(f"{at}: answer {status} gone")
            elif status.startswith("2"):
                self._answer(f"{at} {status}", _content(answer), _content(new["responses"][status]))

    def _answer(self, at: str, old: Schema, new: Schema) -> None:
        """An old client reads the new answer: nothing it knows is gone, nothing is of another type."""
        olds, news = _kinds(self._old, old), _kinds(self._new, new)
        if olds and (unheard := set(news) - set(olds)):
            self.problems.append(f"{at}: may be {sorted(unheard)} now")
        for kind, was in olds.items():
            now = news.get(kind, {})
            if "enum" in was and (values := set(now.get("enum", [])) - set(was["enum"])):
                self.problems.append(f"{at}: may be {sorted(values)} now")
            if "items" in was and now:
                self._answer(f"{at}[]", was["items"], now.get("items", {}))
            for name, schema in was.get("properties", {}).items():
                if name not in now.get("properties", {}):
                    self.problems.append(f"{at}.{name}: gone")
                    continue
                self._answer(f"{at}.{name}", schema, now["properties"][name])
                if name in was.get("required", []) and name not in now.get("required", []):
                    self.problems.append(f"{at}.{name}: may be absent now")

    def _request(self, at: str, old: Schema, new: Schema) -> None:
        """The new gateway reads an old client's call: all that was allowed still is, no more is needed."""
        olds, news = _kinds(self._old, old), _kinds(self._new, new)
        if news and (refused := set(olds) - set(news)):
            self.problems.append(f"{at}: may not be {sorted(refused)} any more")
        for kind, was in olds.items():
            now = news.get(kind, {})
            for bound, tighter in (
                ("minimum", max),
                ("minLength", max),
                ("maximum", min),
                ("maxLength", min),
            ):
                if bound in now and (bound not in was or tighter(was[bound], now[bound]) != was[bound]):
                    self.problems.append(f"{at}: {bound} is {now[bound]} now")
            if "enum" in now and (values := set(was.get("enum", [])) - set(now["enum"])):
                self.problems.append(f"{at}: may not be {sorted(values)} any more")
            if "items" in was:
                self._request(f"{at}[]", was["items"], now.get("items", {}))
            for name in set(now.get("required", [])) - set(was.get("required", [])):
                self.problems.append(f"{at}.{name}: required now")
            for name, schema in was.get("properties", {}).items():
                if name in now.get("properties", {}):
                    self._request(f"{at}.{name}", schema, now["properties"][name])
                elif now.get("additionalProperties") is False:
                    self.problems.append(f"{at}.{name}: refused now")


def _content(answer: Schema) -> Schema:
    content = answer.get("content", {})
    found: Schema = content.get("application/json", {}).get("schema", {})
    return found


def _kinds(document: Schema, schema: Schema) -> dict[str, Schema]:
    """The JSON types that a schema allows, each with its own schema; empty when it allows anything."""
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    if "const" in schema:
        schema = {**schema, "enum": [schema["const"]]}
    found: dict[str, Schema] = {}
    for part in schema.get("anyOf", []) + schema.get("oneOf", []):
        found |= _kinds(document, part)
    kinds = schema.get("type", [])
    return found | dict.fromkeys([kinds] if isinstance(kinds, str) else kinds, schema)
