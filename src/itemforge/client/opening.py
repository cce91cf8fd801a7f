"""What a connection pool is made with: where the gateway is, who calls, and whom to trust."""

import ssl
from functools import cache
from pathlib import Path
from typing import Any

from itemforge.settings import ClientSettings, load
from itemforge.tls import client_context


def pool(url: str, key: str | None, timeout: float, ca_file: Path | None) -> dict[str, Any]:
    """Arguments of httpx's clients.

    Raises:
        ConfigurationError: `ca_file` cannot be read.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    trust = client_context(ca_file) if ca_file else _system_trust()
    return {"base_url": url, "headers": headers, "timeout": timeout, "verify": trust}


def from_environment(url: str | None) -> dict[str, Any]:
    """Arguments of our clients by API_GATEWAY_URL, ITEMFORGE_API_KEY and ITEMFORGE_CA_FILE; `url` wins.

    Raises:
        ConfigurationError: one of them is wrong.
    """
    settings = load(ClientSettings, api_gateway_url=url)
    key = settings.api_key.get_secret_value() if settings.api_key else None
    return {"url": settings.api_gateway_url, "key": key, "ca_file": settings.ca_file}


@cache
def _system_trust() -> ssl.SSLContext:
    """Made once: to read all certificates of a system takes as long as many calls."""
    return client_context(None)
