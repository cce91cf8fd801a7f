"""The tables: `requests` is the truth and the outbox, `events` its history, `workers` who is alive,
`api_keys` who may come in, `sessions` the browsers that are in, `favourites` and `collections` what people picked,
`webhooks` who is told of ends, `webhook_deliveries` the outbox of what they are told, `batches` what was asked for
together."""

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
_unsettled = text("status = 'Failed' AND settled_at IS NULL AND deleted_at IS NULL")
_waiting = text("status = 'Pending' AND published_at IS NOT NULL")
_deleted = text("deleted_at IS NOT NULL")
_own = text("url IS NULL")
_due = text("next_at IS NOT NULL")

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
    Column("webhook", Text),  # an address that is told of this request's end
    Column("flagged", Text),  # the rule of the block list that the prompt breaks
    Column("traceparent", String(55)),  # W3C trace context of the call that made the request
    Column("attempt_traceparent", String(55)),  # of the latest attempt
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Column("finished_at", UtcTime),
    Column("settled_at", UtcTime),  # of a Failed one: an operator sent it again, or let it be
    Column("deleted_at", UtcTime),  # hidden, and can be restored until the cleaner comes a day later
    Column("erased_at", UtcTime),  # deleted for good; late messages still find an ended request
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
    Index("ix_requests_unsettled", "finished_at", postgresql_where=_unsettled, sqlite_where=_unsettled),
    Index("ix_requests_waiting", "owner", postgresql_where=_waiting, sqlite_where=_waiting),
    Index("ix_requests_deleted", "deleted_at", postgresql_where=_deleted, sqlite_where=_deleted),
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
    Column("facts", JSON),  # contract.WorkerFacts; NULL: it tells none
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
    Column("content", String(8)),  # allow, flag or refuse; NULL: the gateway's setting
    Column("created_at", UtcTime, nullable=False),
    Column("last_used_at", UtcTime),
    Column("revoked_at", UtcTime),
    Index("uq_api_keys_hash", "hash", unique=True),
)

sessions = Table(
    "sessions",
    metadata,
    Column("hash", String(64), primary_key=True),  # sha256 of the cookie in hex
    Column("key_hash", String(64), nullable=False),  # of the key that it was made from, and ends with
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Index("ix_sessions_key_hash", "key_hash"),
    Index("ix_sessions_expires_at", "expires_at"),
)

favourites = Table(
    "favourites",
    metadata,
    Column("owner", String(200), primary_key=True),  # who likes it, not whose it is
    Column("request_id", Uuid, ForeignKey("requests.id", ondelete="CASCADE"), primary_key=True),
    Column("created_at", UtcTime, nullable=False),
    Index("ix_favourites_request_id", "request_id"),
)

collections = Table(
    "collections",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner", String(200), nullable=False),
    Column("name", String(100), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Index("uq_collections_owner_name", "owner", "name", unique=True),
)

collection_items = Table(
    "collection_items",
    metadata,
    Column("collection_id", Uuid, ForeignKey("collections.id", ondelete="CASCADE"), primary_key=True),
    Column("request_id", Uuid, ForeignKey("requests.id", ondelete="CASCADE"), primary_key=True),
    Column("added_at", UtcTime, nullable=False),
    Index("ix_collection_items_request_id", "request_id"),
)

batches = Table(
    "batches",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner", String(200), nullable=False),
    Column("name", String(200), nullable=False),
    Column("style", String(80), nullable=False),  # id@version
    Column("settings", JSON, nullable=False),  # what was asked for all things, as it was sent
    Column("things", Integer, nullable=False),
    Column("size", Integer, nullable=False),  # cells
    Column("idempotency_key", String(200)),
    Column("body_hash", String(64), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Index("uq_batches_owner_idempotency_key", "owner", "idempotency_key", unique=True),
    Index("ix_batches_created_at_id", "created_at", "id"),
    Index("ix_batches_owner_created_at_id", "owner", "created_at", "id"),
)

batch_items = Table(
    "batch_items",
    metadata,
    Column("batch_id", Uuid, ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True),
    Column("thing", Integer, primary_key=True),  # its place in the list, from 0
    Column("variation", Integer, primary_key=True),  # from 0
    Column("name", String(200), nullable=False),  # what its files are called by
    Column("request_id", Uuid, nullable=False),  # stands for it now; no key: requests go when they are old
    Column("verdict", String(16), nullable=False),  # none, approved or rejected
    Column("tries", Integer, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Index("ix_batch_items_request_id", "request_id"),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", String(200), nullable=False),
    Column("url", Text),  # NULL: the owner's own row, whose secret signs what goes to requests' addresses
    Column("events", JSON, nullable=False),  # list of event types
    Column("secret", String(100), nullable=False),  # as it is, because it has to sign
    Column("old_secret", String(100)),
    Column("old_until", UtcTime),  # the old one signs besides until then
    Column("created_at", UtcTime, nullable=False),
    Column("disabled_at", UtcTime),
    Column("disabled_reason", Text),
    Index("ix_webhooks_owner", "owner"),
    Index("uq_webhooks_own", "owner", unique=True, postgresql_where=_own, sqlite_where=_own),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", String(40), primary_key=True),  # the webhook-id, by which a receiver knows a repetition
    Column("webhook_id", String(32), ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    Column("request_id", Uuid, ForeignKey("requests.id", ondelete="CASCADE")),  # NULL: a test
    Column("type", String(40), nullable=False),
    Column("state", String(16), nullable=False),  # waiting, delivered or failed
    Column("attempts", Integer, nullable=False),  # also the fencing token
    Column("tries_left", Integer, nullable=False),
    Column("next_at", UtcTime),  # the next try, or when one under way counts as lost; NULL: ended
    Column("last_status", Integer),
    Column("error", Text),
    Column("created_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Index("ix_webhook_deliveries_next_at", "next_at", postgresql_where=_due, sqlite_where=_due),
    Index("ix_webhook_deliveries_webhook_id_created_at_id", "webhook_id", "created_at", "id"),
    Index("ix_webhook_deliveries_request_id", "request_id"),
    Index("ix_webhook_deliveries_ended_at", "ended_at"),
)
