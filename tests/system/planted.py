"""Secrets of our own making, in every setting that may hold one, and a search for them in any form."""

import base64
import json
import typing
import uuid
from dataclasses import dataclass, field
from urllib.parse import quote, quote_plus

from pydantic import SecretStr

from itemforge.settings import LogSettings

#: Secrets of libraries and services that stand in the same environment.
FOREIGN = ("WANDB_API_KEY", "GEMINI_API_KEY", "HF_TOKEN", "GCS_SECRET", "AWS_SECRET_ACCESS_KEY")


def secret_settings(cls: type[LogSettings] = LogSettings) -> dict[str, str]:
    """Environment variable of every secret field of every settings class, by the field's name."""
    found = {}
    for name, about in cls.model_fields.items():
        if _holds_secret(about.annotation):
            found[name] = str(about.validation_alias or f"ITEMFORGE_{name.upper()}")
    for sub in cls.__subclasses__():
        found |= secret_settings(sub)
    return found


def _holds_secret(annotation: object) -> bool:
    return annotation is SecretStr or any(_holds_secret(part) for part in typing.get_args(annotation))


def new_secret(name: str) -> str:
    """Never the same twice, and with the characters that are written in other ways in an address."""
    return f"pl4nted-{name}/{uuid.uuid4().hex}@+Z"


def forms(secret: str) -> set[str]:
    """Every way to write a secret from which it can be read back; base64 at each of its three places."""
    data = secret.encode()
    found = {secret, quote(secret, safe=""), quote(secret), quote_plus(secret), json.dumps(secret)[1:-1]}
    found |= {repr(secret)[1:-1], data.hex(), secret[::-1]}
    for shift in range(3):
        whole = base64.b64encode(b"\0" * shift + data).decode()
        # Without the characters that also hold bits of a neighbour.
        inner = whole[0 if shift == 0 else 4 : len(whole) - 4]
        found |= {inner, inner.replace("+", "-").replace("/", "_")}
    return found


@dataclass
class Search:
    """What was planted, and every text in which it must not be."""

    secrets: dict[str, str] = field(default_factory=dict)
    texts: list[tuple[str, str]] = field(default_factory=list)

    def plant(self, name: str) -> str:
        return self.secrets.setdefault(name, new_secret(name))

    def look(self, where: str, text: str | bytes) -> None:
        self.texts.append((where, text if isinstance(text, str) else text.decode("latin-1")))

    def leaks(self) -> list[str]:
        """Which secret was found where, with a little of what stands before it."""
        return [
            f"{name} in {where}: …{text[max(0, text.find(form) - 80) : text.find(form)]}"
            for name, secret in self.secrets.items()
            for form in forms(secret)
            for where, text in self.texts
            if form in text
        ]
