"""Requests, events, workers.

A migration never imports the program's tables: they will change, and this will not.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_UNPUBLISHED = sa.text("published_at IS NULL AND status IN ('Pending', 'Processing')")
_OPEN = sa.text("status IN ('Pending', 'Processing')")


def upgrade() -> None:
    _requests()
    op.create_table(
        "events",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column(
            "request_id",
            sa.Uuid,
            sa.ForeignKey("requests.id", ondelete="CASCADE", name="fk_events_request_id_requests"),
            nullable=False,
        ),
        sa.Column("type", sa.String(16), nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_request_id_id", "events", ["request_id", "id"])
    op.create_index("ix_events_created_at", "events", ["created_at"])
    op.create_table(
        "workers",
        sa.Column("worker_id", sa.String(200), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("free", sa.Integer, nullable=False),
        sa.Column("in_hand", sa.Integer, nullable=False),
        sa.Column("first_seen", _TIME, nullable=False),
        sa.Column("last_seen", _TIME, nullable=False),
    )


def _requests() -> None:
    op.create_table(
        "requests",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("style", sa.String(80)),
        sa.Column("params", sa.JSON, nullable=False),
        sa.Column("images", sa.JSON),
        sa.Column("image_url", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("charged", sa.Integer, nullable=False),
        sa.Column("lease_until", _TIME),
        sa.Column("worker_id", sa.String(200)),
        sa.Column("reported", sa.String(16)),
        sa.Column("progress", sa.JSON),
        sa.Column("watched_until", _TIME),
        sa.Column("published_at", _TIME),
        sa.Column("idempotency_key", sa.String(200)),
        sa.Column("body_hash", sa.String(64)),
        sa.Column("retry_of", sa.Uuid),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.Column("finished_at", _TIME),
        sa.Column("deleted_at", _TIME),
    )
    op.create_index(
        "uq_requests_owner_idempotency_key", "requests", ["owner", "idempotency_key"], unique=True
    )
    op.create_index("ix_requests_created_at_id", "requests", ["created_at", "id"])
    op.create_index("ix_requests_status_created_at", "requests", ["status", "created_at"])
    op.create_index("ix_requests_style_created_at", "requests", ["style", "created_at"])
    op.create_index("ix_requests_finished_at", "requests", ["finished_at"])
    op.create_index(
        "ix_requests_unpublished",
        "requests",
        ["owner", "created_at"],
        postgresql_where=_UNPUBLISHED,
        sqlite_where=_UNPUBLISHED,
    )
    op.create_index(
        "ix_requests_open", "requests", ["published_at"], postgresql_where=_OPEN, sqlite_where=_OPEN
    )


def downgrade() -> None:
    for table in ("workers", "events", "requests"):
        op.drop_table(table)
