"""Captions by Gemini, through Google's own client `google-genai`.

The client does not try again unless it is told to (`retry_options` unset is one try, whatever its documentation
says), so it is told: for 5xx and for requests that time out. A 429 it would repeat without regard to the wait
that the service asks for, so that is left to the run, which keeps all threads back.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from pydantic import SecretStr

from itemforge.dataset.captioning.face import Answer, Failed, Key, Picture, Reason
from itemforge.dataset.captioning.gemini_answer import read_answer
from itemforge.dataset.captioning.gemini_errors import failure, redacted
from itemforge.dataset.captioning.gemini_request import INSTRUCTION, VERSION, generation_config, question
from itemforge.errors import ConfigurationError
from itemforge.tls import client_context

if TYPE_CHECKING:
    from google.genai import Client, types

DEFAULT_MODEL = "gemini-3.5-flash-lite"
ADDRESS = "https://generativelanguage.googleapis.com"
#: What the client tries again by itself; not 429.
_RETRIED = [408, 500, 502, 503, 504]
#: Where the client's loggers say what a service answered. A filter holds for its own logger only.
_LOGGERS = (
    "google_genai",
    "google_genai._api_client",
    "google_genai.models",
    "google_genai.batches",
    "google_genai.files",
)


@dataclass(frozen=True)
class GeminiOptions:
    """How Gemini is spoken to. `attempts` and `pause` (seconds, doubled each time) are those of the client."""

    model: str = DEFAULT_MODEL
    base_url: str = ADDRESS
    timeout: float = 60.0
    attempts: int = 4
    pause: float = 1.0
    ca_file: Path | None = None


class GeminiCaptioner:
    """One model of Gemini. To be closed.

    Raises:
        ConfigurationError: there is no key, or none that can be one, or google-genai is not installed.
    """

    def __init__(self, key: SecretStr | None, options: GeminiOptions | None = None) -> None:
        if key is None or not key.get_secret_value().strip():
            raise ConfigurationError(
                "captions by Gemini need an API key: set GEMINI_API_KEY (or GOOGLE_API_KEY), or caption by a local "
                "model or by name"
            )
        if not (key.get_secret_value().isascii() and key.get_secret_value().strip().isprintable()):
            raise ConfigurationError("GEMINI_API_KEY must be printable ASCII: it travels in an HTTP header")
        self.options = options or GeminiOptions()
        self.secret = key
        self.model = self.options.model.removeprefix("models/")
        self._http = httpx.Client(verify=client_context(self.options.ca_file), timeout=self.options.timeout)
        self.client = _client(key, self.options, self._http)
        self._redacting = _Redacting(key)
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(self._redacting)

    def __enter__(self) -> "GeminiCaptioner":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(self._redacting)

    def key(self, picture: Picture) -> Key:
        return Key(picture.sha256, VERSION, self.model)

    def caption(self, picture: Picture) -> Answer:
        png = picture.load()
        if not png:
            return Failed(Reason.UNREADABLE, "the picture's file is empty")
        try:
            response = self._generate(png, picture.name)
        except (
            Exception
        ) as error:  # every kind becomes an answer of its own; what is unknown, a malformed one
            return failure(error, self.secret)
        return read_answer(response)

    def _generate(self, png: bytes, name: str) -> dict[str, Any]:
        from google.genai import types

        picture = types.Part.from_bytes(data=png, mime_type="image/png")
        response = self.client.models.generate_content(
            model=self.model,
            contents=types.Content(role="user", parts=[picture, types.Part(text=question(name))]),
            config=_config(self.model),
        )
        rest: dict[str, Any] = response.model_dump(mode="json", by_alias=True, exclude_none=True)
        return rest


def _config(model: str) -> "types.GenerateContentConfig":
    from google.genai import types

    # The client's config has the same fields as REST's generationConfig, under the same names.
    rest = {"systemInstruction": INSTRUCTION, **generation_config(model)}
    return types.GenerateContentConfig.model_validate(rest)


def _client(key: SecretStr, options: GeminiOptions, http: httpx.Client) -> "Client":
    try:
        from google import genai
        from google.genai import types
    except ImportError:
        raise ConfigurationError(
            "google-genai is not installed, by which Gemini is asked: pip install 'itemforge[data]'"
        ) from None
    retry = types.HttpRetryOptions(
        attempts=options.attempts,
        initial_delay=options.pause,
        jitter=options.pause,
        max_delay=60.0,
        http_status_codes=_RETRIED,
    )
    http_options = types.HttpOptions(
        base_url=options.base_url,
        api_version="v1beta",
        timeout=int(options.timeout * 1000),
        retry_options=retry,
        httpx_client=http,
    )
    # Both said outright, or the client would look for them in the environment.
    return genai.Client(vertexai=False, api_key=key.get_secret_value(), http_options=http_options)


class _Redacting(logging.Filter):
    """The client logs errors that it tries again with all that the service said."""

    def __init__(self, key: SecretStr) -> None:
        super().__init__()
        self._key = key

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if self._key.get_secret_value() in text:
            record.msg, record.args = redacted(text, self._key, len(text)), None
        return True
