"""The only reader of the environment: one settings class for each process.

Values come from the environment, then from `.env` in the working directory, then from the defaults,
which are safe on a laptop. Names that operators of the existing services already have are kept
(`RABBITMQ_HOST`, `DATABASE_URL`, …); all others begin with `ITEMFORGE_`. Secrets have no default and
are `SecretStr`, so they never show in a log or a traceback.
"""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import quote, unquote, urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from itemforge.errors import ConfigurationError


def _is_address(text: str, *schemes: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, brackets that do not close
        return False


def _http_address(text: str) -> str:
    if not _is_address(text, "http", "https"):
        raise ValueError("must be an address such as http://127.0.0.1:8000")
    return text


def _amqp_address(secret: SecretStr) -> SecretStr:
    if not _is_address(secret.get_secret_value(), "amqp", "amqps"):
        raise ValueError(
            "must be an address such as amqp://user:password@host:5672/vhost, with %XX for special characters"
        )
    return secret


def _header_text(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value().strip()
    if not (text.isascii() and text.isprintable()):
        raise ValueError("must be printable ASCII: it travels in an HTTP header")
    return SecretStr(text)


def _header_pairs(secret: SecretStr) -> SecretStr:
    if not all(name.strip() and sep for name, sep, _ in _pairs(_header_text(secret))):
        raise ValueError("must be name=value pairs with commas between them, with %XX for special characters")
    return secret


def _pairs(secret: SecretStr) -> list[tuple[str, str, str]]:
    return [pair.partition("=") for pair in secret.get_secret_value().split(",") if pair.strip()]


def _networks(text: str) -> str:
    try:
        for part in text.split(","):
            if part.strip():
                ipaddress.ip_network(part.strip())
    except ValueError:
        raise ValueError(
            "must be addresses and networks with commas between them, such as 10.0.0.0/8, 192.168.1.5"
        ) from None
    return text


HttpAddress = Annotated[str, AfterValidator(_http_address)]
AmqpAddress = Annotated[SecretStr, AfterValidator(_amqp_address)]
ApiKey = Annotated[SecretStr, AfterValidator(_header_text)]
OtlpHeaders = Annotated[SecretStr, AfterValidator(_header_pairs)]
Networks = Annotated[str, AfterValidator(_networks)]


class LogSettings(BaseSettings):
    """What every process has: a home, a log, and where its traces go."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_prefix="ITEMFORGE_",
        extra="ignore",
        env_ignore_empty=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    home: Path = Field(
        default=Path("~/.local/share/itemforge"),
        description="models, styles and the embedded system's data",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least level that is logged"
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="JSON, coloured lines, or JSON unless on a terminal"
    )
    log_prompts: bool = Field(
        default=False, description="whether prompts stand in the log at every level, and not only at debug"
    )
    otel_service_name: str | None = Field(
        default=None,
        validation_alias="OTEL_SERVICE_NAME",
        description="name in logs and traces; default itemforge- and the process",
    )
    otel_endpoint: HttpAddress | None = Field(
        default=None,
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="OTLP/HTTP collector of traces, such as http://127.0.0.1:4318; unset: no traces",
    )
    otel_headers: OtlpHeaders | None = Field(
        default=None,
        validation_alias="OTEL_EXPORTER_OTLP_HEADERS",
        description="name=value pairs, with commas, that the collector asks for",
    )
    otel_ratio: float = Field(
        default=1.0,
        ge=0,
        le=1,
        validation_alias="OTEL_TRACES_SAMPLER_ARG",
        description="part of the requests that is traced, where the caller has not decided it",
    )

    @field_validator("home")
    @classmethod
    def _expand(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    def service_name(self, process: str) -> str:
        """What logs and traces of a process call it."""
        # `itemforge up` is all of it.
        default = "itemforge" if process == "itemforge" else f"itemforge-{process}"
        return self.otel_service_name or default

    def otlp_headers(self) -> dict[str, str]:
        """What the collector of traces is sent besides. Never log it."""
        found = _pairs(self.otel_headers) if self.otel_headers else []
        return {unquote(name.strip()): unquote(value.strip()) for name, _, value in found}


class TrustSettings(LogSettings):
    """Whose certificates are believed."""

    ca_file: Path | None = Field(
        default=None,
        description="certificates (PEM) trusted besides the system's, for amqps:// and https:// addresses",
    )


class BrokerSettings(TrustSettings):
    """How to reach RabbitMQ: `ITEMFORGE_AMQP_URL`, or the parts."""

    amqp_url_setting: AmqpAddress | None = Field(
        default=None,
        validation_alias="ITEMFORGE_AMQP_URL",
        description="amqp:// or amqps:// address; wins over the RABBITMQ_ parts",
    )
    rabbitmq_host: str | None = Field(
        default=None, validation_alias="RABBITMQ_HOST", description="RabbitMQ host"
    )
    rabbitmq_port: int = Field(default=5672, validation_alias="RABBITMQ_PORT", description="RabbitMQ port")
    rabbitmq_user: str = Field(
        default="guest",
        validation_alias="RABBITMQ_DEFAULT_USER",
        description="RabbitMQ user",
    )
    rabbitmq_pass: SecretStr = Field(
        default=SecretStr("guest"),  # RabbitMQ's own default; it only works from loopback
        validation_alias="RABBITMQ_DEFAULT_PASS",
        description="RabbitMQ password",
    )
    rabbitmq_vhost: str = Field(
        default="/", validation_alias="RABBITMQ_VHOST", description="RabbitMQ virtual host"
    )
    publish_timeout: float = Field(default=10.0, gt=0, description="seconds to wait for the broker's confirm")
    amqp_heartbeat: int = Field(default=30, ge=1, description="AMQP heartbeat in seconds")
    reconnect_max: float = Field(
        default=30.0, gt=0, description="longest pause between connection attempts, in seconds"
    )
    stall_after: float = Field(
        default=60.0,
        gt=0,
        description="seconds with waiting messages and no delivery, after which the consumer is rebuilt",
    )
    retry_scale: float = Field(
        default=1.0, gt=0, le=1, description="factor on the retry delays; below 1 only in tests"
    )

    @property
    def amqp_url(self) -> str | None:
        """The broker's address with its password, or None when none is set up. Never log it."""
        if self.amqp_url_setting is not None:
            return self.amqp_url_setting.get_secret_value()
        if self.rabbitmq_host is None:
            return None
        user = quote(self.rabbitmq_user, safe="")
        password = quote(self.rabbitmq_pass.get_secret_value(), safe="")
        vhost = quote(self.rabbitmq_vhost, safe="")
        return f"amqp://{user}:{password}@{self.rabbitmq_host}:{self.rabbitmq_port}/{vhost}"

    def require_amqp_url(self) -> str:
        """The broker's address.

        Raises:
            ConfigurationError: none is set.
        """
        if (url := self.amqp_url) is None:
            raise ConfigurationError("no RabbitMQ is set: set ITEMFORGE_AMQP_URL or RABBITMQ_HOST")
        return url


class StorageSettings(LogSettings):
    """Where pictures go: `ITEMFORGE_STORAGE_URL`, or `GCS_BUCKET_NAME` alone, or a folder at home."""

    storage_url_setting: str | None = Field(
        default=None,
        validation_alias="ITEMFORGE_STORAGE_URL",
        description="gs://bucket/prefix or file:///folder",
    )
    gcs_bucket_name: str | None = Field(
        default=None,
        validation_alias="GCS_BUCKET_NAME",
        description="bucket; alone it means gs://bucket",
    )
    google_application_credentials: Path | None = Field(
        default=None,
        validation_alias="GOOGLE_APPLICATION_CREDENTIALS",
        description="service-account key; else gcs-key.json or gcs_key.json in the working directory "
        "or at home, else the machine's own credentials",
    )
    storage_emulator_host: str | None = Field(
        default=None,
        validation_alias="STORAGE_EMULATOR_HOST",
        description="address of a GCS emulator (tests)",
    )
    storage_public_url: str | None = Field(
        default=None, description="public address of the store's root, if it is not the store's own"
    )
    storage_timeout: float = Field(
        default=60.0, gt=0, description="seconds that one call to the store may take, retries included"
    )

    @property
    def storage_set(self) -> bool:
        """Whether a store was named, or the folder at home is only what is left."""
        return bool(self.storage_url_setting or self.gcs_bucket_name)

    @property
    def storage_url(self) -> str:
        if self.storage_url_setting:
            return self.storage_url_setting
        if self.gcs_bucket_name:
            return f"gs://{self.gcs_bucket_name}"
        return (self.home / "objects").as_uri()


class GatewaySettings(BrokerSettings, StorageSettings):
    """The API gateway."""

    host: str = Field(default="127.0.0.1", description="address that the gateway listens on")
    port: int = Field(default=8000, ge=0, le=65535, description="port; 0 takes a free one")
    tls_cert_file: Path | None = Field(
        default=None, description="certificate and its chain (PEM); with it the gateway serves https"
    )
    tls_key_file: Path | None = Field(default=None, description="the certificate's private key (PEM)")
    database_url_setting: SecretStr | None = Field(
        default=None,
        validation_alias="DATABASE_URL",
        description="postgresql://… or sqlite:///…; default a SQLite file at home",
    )
    admin_key: ApiKey | None = Field(
        default=None, description="bootstrap admin key, which also holds while the database is away"
    )
    key_cache: float = Field(
        default=5.0,
        ge=0,
        description="seconds that a key's look-up is believed; a revoked one ends that soon",
    )
    wrong_keys: int = Field(
        default=10, ge=1, description="wrong keys a minute that one address may try before it has to wait"
    )
    rate_limit: int = Field(
        default=600,
        ge=0,
        description="submissions a minute of a user key that has no rate of its own; 0: any",
    )
    quota: int = Field(
        default=2000, ge=0, description="images a day of a user key that has no quota of its own; 0: any"
    )
    block_list: Path | None = Field(
        default=None, description="file of words and phrases, one a line, that are not drawn"
    )
    content: Literal["allow", "flag", "refuse"] = Field(
        default="refuse",
        description="what becomes of prompts with such words from a key that has no rule of its own",
    )
    trusted_proxies: str = Field(
        default="127.0.0.1",
        description="addresses and networks, with commas, of proxies whose X-Forwarded-For is believed",
    )
    images_wait: float = Field(
        default=300.0,
        gt=0,
        le=3600,
        description="seconds that /v1/images/generations waits for its pictures; then it answers 504",
    )
    session_days: float = Field(
        default=30.0, gt=0, le=365, description="days after which a browser has to show its key again"
    )
    use_notice: str | None = Field(
        default=None,
        max_length=1000,
        description="line at the foot of the studio's pages; default: the licences that bind its pictures",
    )
    seed_routes: Literal["key", "open", "off"] = Field(
        default="key", description="who may use /generate, /status and /update_db"
    )
    metrics: Literal["key", "open"] = Field(
        default="key", description="who may read /metrics: monitor and admin keys, or everybody"
    )
    default_style: str = Field(default="plain", description="style whose LoRA draws messages that name none")
    model: str = Field(default="starter", description="base model: a name or a directory")
    public_url: str | None = Field(
        default=None, description="the gateway's address as its clients see it, behind a proxy"
    )
    lease: float = Field(default=30.0, gt=0, description="seconds that a claim or heartbeat leases a row")
    relay_interval: float = Field(
        default=1.0,
        gt=0,
        description="seconds between the looks of relay and webhook sender when nothing wakes them",
    )
    relay_window: int = Field(
        default=32, ge=1, description="least number of rows published and not yet claimed"
    )
    sweep_interval: float = Field(default=60.0, gt=0, description="seconds between sweeps")
    sweep_after: float = Field(
        default=900.0, gt=0, description="seconds after which an unclaimed message counts as lost"
    )
    worker_timeout: float = Field(
        default=30.0, gt=0, description="seconds without heartbeat after which a worker is gone"
    )
    upload_time: float = Field(
        default=900.0, ge=1, le=604800, description="seconds that a signed upload may be used; at most a week"
    )
    upload_max_mib: int = Field(default=64, ge=1, le=1024, description="largest signed upload, in MiB")
    retain_requests: float = Field(
        default=0.0, ge=0, description="days that ended requests and their pictures are kept; 0 for ever"
    )
    retain_deliveries: float = Field(
        default=7.0, ge=0, description="days that ended webhook deliveries are listed; 0 for ever"
    )
    webhook_http: bool = Field(default=False, description="whether webhooks may go to http:// addresses")
    webhook_networks: Networks = Field(
        default="",
        description="addresses and networks, with commas, that webhooks may reach besides public ones",
    )
    webhook_timeout: float = Field(
        default=15.0, gt=0, le=120, description="seconds that a webhook's receiver may take for its answer"
    )
    retain_events: float = Field(default=7.0, ge=0, description="days that events are kept; 0 for ever")
    clean_interval: float = Field(default=3600.0, gt=0, description="seconds between clean-ups")

    @property
    def webhook_allowed(self) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        """The networks that webhooks may reach besides public addresses."""
        return [
            ipaddress.ip_network(part.strip()) for part in self.webhook_networks.split(",") if part.strip()
        ]

    @property
    def database_url(self) -> str:
        """The database's address with the async driver in it. Never log it."""
        if self.database_url_setting is None:
            return f"sqlite+aiosqlite:///{self.home / 'itemforge.db'}"
        url = self.database_url_setting.get_secret_value()
        for plain, driver in (
            ("postgresql://", "postgresql+asyncpg://"),
            ("postgres://", "postgresql+asyncpg://"),
            ("postgresql+psycopg2://", "postgresql+asyncpg://"),
            ("sqlite://", "sqlite+aiosqlite://"),
        ):
            if url.startswith(plain):
                return driver + url.removeprefix(plain)
        return url


class EngineSettings(LogSettings):
    """The engine, in the worker's child process or alone."""

    model: str = Field(default="starter", description="base model: a name, a directory or a checkpoint file")
    default_style: str = Field(default="plain", description="style whose LoRA draws messages that name none")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        default="auto", description="auto: measured at warm-up"
    )
    batch_size: int = Field(
        default=0, ge=0, le=64, description="images that share a UNet call; 0: 8, halved on out-of-memory"
    )
    noise_device: Literal["cpu", "cuda"] = Field(
        default="cpu", description="where noise is drawn; cuda reproduces the original service"
    )
    quality: Literal["exact", "standard", "draft"] = Field(
        default="exact", description="exact, or with fewer steps: standard, draft (docs/engine.md)"
    )
    threads: int = Field(default=0, ge=0, description="CPU threads of the engine; 0: all cores")


class WorkerSettings(BrokerSettings, StorageSettings, EngineSettings):
    """The inference worker."""

    api_gateway_url: HttpAddress = Field(
        default="http://127.0.0.1:8000",
        validation_alias="API_GATEWAY_URL",
        description="the gateway's address",
    )
    api_key: ApiKey | None = Field(default=None, description="key for the gateway")
    worker_id: str | None = Field(
        default=None, min_length=1, max_length=200, description="default: host name and a random part"
    )
    worker_host: str = Field(default="127.0.0.1", description="address of the worker's probes and metrics")
    worker_port: int = Field(
        default=9464,
        ge=0,
        le=65535,
        description="port of the worker's probes and metrics; 0 takes a free one",
    )
    price_per_hour: float = Field(
        default=0.0, ge=0, description="what the worker's machine costs an hour, for the cost of an image"
    )
    gateway_mode: Literal["auto", "claims", "seed"] = Field(
        default="auto", description="claims, or a gateway that knows only /update_db; auto finds out"
    )
    gateway_timeout: float = Field(default=10.0, gt=0, description="seconds that one call may take")
    uploads: Literal["auto", "signed", "direct"] = Field(
        default="auto",
        description="signed: by addresses that the gateway hands out; direct: with the worker's own storage "
        "settings; auto: signed where none are set",
    )
    upload_places: int = Field(default=4, ge=1, le=64, description="uploads under way at once")
    heartbeat_interval: float = Field(default=1.0, gt=0, description="seconds between heartbeats, busy")
    heartbeat_idle: float = Field(default=10.0, gt=0, description="seconds between heartbeats, idle")
    engine_silence: float = Field(
        default=60.0, gt=0, description="least seconds of silence after which the engine is replaced"
    )
    engine_warmup: float = Field(default=600.0, gt=0, description="seconds the engine may take to be ready")
    spool_time: float = Field(
        default=600.0, gt=0, description="seconds that a finished picture waits for storage and gateway"
    )
    retry_pause: float = Field(
        default=1.0, gt=0, description="first pause between tries of an upload or a report, in seconds"
    )
    breaker_after: int = Field(
        default=3, ge=1, description="infrastructure failures in a row before consuming stops"
    )
    breaker_probe: float = Field(default=5.0, gt=0, description="seconds between probes while it is stopped")
    drain_timeout: float = Field(
        default=600.0, gt=0, description="seconds that drawing may go on after SIGTERM"
    )


class ClientSettings(TrustSettings):
    """The command line, as a client of a gateway."""

    api_gateway_url: HttpAddress = Field(
        default="http://127.0.0.1:8000",
        validation_alias="API_GATEWAY_URL",
        description="the gateway's address",
    )
    api_key: ApiKey | None = Field(default=None, description="key for the gateway")


class PullSettings(TrustSettings):
    """`itemforge models pull`: where models come from."""

    hf_endpoint: HttpAddress = Field(
        default="https://huggingface.co",
        validation_alias="HF_ENDPOINT",
        description="the Hugging Face Hub, or a mirror of it",
    )
    hf_token: ApiKey | None = Field(
        default=None,
        validation_alias="HF_TOKEN",
        description="token for the Hugging Face Hub; only gated and private models need one",
    )
    wandb_api_key: ApiKey | None = Field(
        default=None, validation_alias="WANDB_API_KEY", description="key for artifacts of Weights & Biases"
    )
    tsuki_lora: str | None = Field(
        default=None,
        description="where `itemforge models pull tsuki` takes the LoRA from, if not from its own source",
    )


class CaptionSettings(TrustSettings):
    """`itemforge data caption`: Gemini, by which pictures are captioned."""

    gemini_api_key: ApiKey | None = Field(
        default=None, validation_alias="GEMINI_API_KEY", description="key for captions by Gemini"
    )
    google_api_key: ApiKey | None = Field(
        default=None, validation_alias="GOOGLE_API_KEY", description="the same, where the other is not set"
    )
    gemini_url: HttpAddress = Field(
        default="https://generativelanguage.googleapis.com", description="the Gemini API, or a proxy of it"
    )
    gemini_timeout: float = Field(default=60.0, gt=0, description="seconds that one answer may take")
    gemini_attempts: int = Field(
        default=4, ge=1, description="tries of a request that fails for the service's sake"
    )
    gemini_pause: float = Field(
        default=1.0, gt=0, description="seconds before the second of these tries; doubled each time"
    )
    gemini_poll: float = Field(default=30.0, gt=0, description="seconds between looks at a batch job")

    @property
    def gemini_key(self) -> SecretStr | None:
        return self.gemini_api_key or self.google_api_key


S = TypeVar("S", bound=LogSettings)


def load(cls: type[S], **overrides: object) -> S:
    """Read settings of one class; `overrides` (None is ignored) win over the environment.

    Raises:
        ConfigurationError: a value is wrong; the text names the setting and never shows its value.
    """
    try:
        return cls(**{name: value for name, value in overrides.items() if value is not None})  # type: ignore[arg-type]  # pydantic checks
    except ValidationError as error:
        wrong = "; ".join(f"{_variable(e['loc'])}: {e['msg']}" for e in error.errors())
        raise ConfigurationError(f"wrong settings: {wrong}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"the file .env cannot be read ({type(error).__name__}); it must be UTF-8 text that this user may read"
        ) from None


def _variable(loc: tuple[int | str, ...]) -> str:
    name = str(loc[0]) if loc else "?"
    return name if name.isupper() else f"ITEMFORGE_{name.upper()}"
