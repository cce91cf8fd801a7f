"""What the API document says of keys: which calls need one, and how they answer without a right one.

It is read from the same rules that `auth.Access` follows.
"""

from typing import Any

from fastapi import FastAPI

from itemforge.gateway.auth import is_public, roles
from itemforge.gateway.problems import documented

_SCHEMES = {
    "HTTPBearer": {"type": "http", "scheme": "bearer"},
    "APIKeyHeader": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_DESCRIPTION = (
    "A key comes as `Authorization: Bearer …` or as `X-API-Key: …`. A gateway on loopback for which no key was "
    "ever made needs none."
)


def describe_access(app: FastAPI) -> None:
    """Complete the document that `app.openapi()` gives."""
    plain = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(plain())
        return plain()

    app.openapi = complete  # type: ignore[method-assign]  # the way that FastAPI's manual names


def _complete(document: dict[str, Any]) -> None:
    document["info"]["description"] = _DESCRIPTION
    document.setdefault("components", {})["securitySchemes"] = _SCHEMES
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if is_public(method.upper(), path):
                continue
            operation["security"] = [{name: []} for name in _SCHEMES]
            said = operation.get("description", "")
            operation["description"] = f"{said}\n\nKeys: {', '.join(roles(path))}.".strip()
            for status, answer in documented(401, 403, 429).items():
                operation["responses"].setdefault(str(status), answer)
