"""The tables: `requests` is the truth and the outbox, `events` its history, `workers` who is alive,
`api_keys` who may come in."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    Uuid,
    text,
)

from itemforge.jobs.clock import UtcTime

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_unpublished = text("published_at IS NULL AND status IN ('Pending', 'Processing')")
_open = text("status IN ('Pending', 'Processing')")
_waiting = text("status = 'Pending' AND published_at IS NOT NULL")

requests = Table(
    "requests",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner", String(200), nullable=False),
    Column("status", String(16), nullable=False),
    Column("prompt", Text, nullable=False),  # as the user wrote it; params hold the composed one
    Column("style", String(80)),  # id@version
    Column("params", JSON, nullable=False),  # contract.JobParams
    Column("images", JSON),  # list of contract.Image
    Column("image_url", Text),
    Column("error", Text),
    Column("attempt", Integer, nullable=False),  # the fencing token
    Column("charged", Integer, nullable=False),  # what went wrong so far
    Column("lease_until", UtcTime),
    Column("worker_id", String(200)),
    Column("reported", String(16)),  # Retry or Released, once this attempt said so
    Column("progress", JSON),  # image -> {step, steps, at}
    Column("watched_until", UtcTime),  # somebody looks at previews until then
    Column("published_at", UtcTime),  # NULL: the relay has to publish it
    Column("idempotency_key", String(200)),
    Column("body_hash", String(64)),
    Column("retry_of", Uuid),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Column("finished_at", UtcTime),
    Column("deleted_at", UtcTime),  # hidden; stays a while so that late messages find an ended request
    Index("uq_requests_owner_idempotency_key", "owner", "idempotency_key", unique=True),
    Index("ix_requests_created_at_id", "created_at", "id"),
    Index("ix_requests_owner_created_at_id", "owner", "created_at", "id"),
    Index("ix_requests_status_created_at", "status", "created_at"),
    Index("ix_requests_style_created_at", "style", "created_at"),
    Index("ix_requests_finished_at", "finished_at"),
    Index(
        "ix_requests_unpublished",
        "owner",
        "created_at",
        postgresql_where=_unpublished,
        sqlite_where=_unpublished,
    ),
    Index("ix_requests_open", "published_at", postgresql_where=_open, sqlite_where=_open),
    Index("ix_requests_waiting", "owner", postgresql_where=_waiting, sqlite_where=_waiting),
)

events = Table(
    "events",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("request_id", Uuid, ForeignKey("requests.id", ondelete="CASCADE"), nullable=False),
    Column("type", String(16), nullable=False),  # state or progress
    Column("data", JSON, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Index("ix_events_request_id_id", "request_id", "id"),
    Index("ix_events_created_at", "created_at"),
    sqlite_autoincrement=True,  # ids are never used again, or a replay would skip
)

workers = Table(
    "workers",
    metadata,
    Column("worker_id", String(200), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("free", Integer, nullable=False),
    Column("in_hand", Integer, nullable=False),  # images
    Column("held", Integer, nullable=False, server_default="0"),  # messages that wait unclaimed in the worker
    Column("first_seen", UtcTime, nullable=False),
    Column("last_seen", UtcTime, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(100), nullable=False),
    Column("role", String(16), nullable=False),  # user, worker or admin
    Column("hash", String(64), nullable=False),  # sha256 of the key in hex; the key itself is nowhere
    Column("rate", Integer),  # submissions a minute; NULL: the gateway's setting
    Column("quota", Integer),  # images a day; NULL: the gateway's setting
    Column("created_at", UtcTime, nullable=False),
    Column("last_used_at", UtcTime),
    Column("revoked_at", UtcTime),
    Index("uq_api_keys_hash", "hash", unique=True),
)
