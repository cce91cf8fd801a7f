"""Webhooks: who is told of a request's end, and the outbox of what they are told."""

import sqlalchemy as sa
from alembic import op

from itemforge.jobs.clock import UtcTime

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_OWN = sa.text("url IS NULL")
_DUE = sa.text("next_at IS NOT NULL")


def upgrade() -> None:
    op.add_column("requests", sa.Column("webhook", sa.Text))
    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("url", sa.Text),
        sa.Column("events", sa.JSON, nullable=False),
        sa.Column("secret", sa.String(100), nullable=False),
        sa.Column("old_secret", sa.String(100)),
        sa.Column("old_until", UtcTime),
        sa.Column("created_at", UtcTime, nullable=False),
        sa.Column("disabled_at", UtcTime),
        sa.Column("disabled_reason", sa.Text),
    )
    op.create_index("ix_webhooks_owner", "webhooks", ["owner"])
    op.create_index(
        "uq_webhooks_own", "webhooks", ["owner"], unique=True, postgresql_where=_OWN, sqlite_where=_OWN
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column(
            "webhook_id", sa.String(32), sa.ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("request_id", sa.Uuid, sa.ForeignKey("requests.id", ondelete="CASCADE")),
        sa.Column("type", sa.String(40), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("tries_left", sa.Integer, nullable=False),
        sa.Column("next_at", UtcTime),
        sa.Column("last_status", sa.Integer),
        sa.Column("error", sa.Text),
        sa.Column("created_at", UtcTime, nullable=False),
        sa.Column("ended_at", UtcTime),
    )
    op.create_index(
        "ix_webhook_deliveries_next_at",
        "webhook_deliveries",
        ["next_at"],
        postgresql_where=_DUE,
        sqlite_where=_DUE,
    )
    op.create_index(
        "ix_webhook_deliveries_webhook_id_created_at_id",
        "webhook_deliveries",
        ["webhook_id", "created_at", "id"],
    )
    op.create_index("ix_webhook_deliveries_request_id", "webhook_deliveries", ["request_id"])
    op.create_index("ix_webhook_deliveries_ended_at", "webhook_deliveries", ["ended_at"])


def downgrade() -> None:
    op.drop_table("webhook_deliveries")
    op.drop_table("webhooks")
    op.drop_column("requests", "webhook")
