"""Batches: many requests that were asked for together."""

import sqlalchemy as sa
from alembic import op

from itemforge.jobs.clock import UtcTime

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("style", sa.String(80), nullable=False),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("things", sa.Integer, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("idempotency_key", sa.String(200)),
        sa.Column("body_hash", sa.String(64), nullable=False),
        sa.Column("created_at", UtcTime, nullable=False),
    )
    op.create_index("uq_batches_owner_idempotency_key", "batches", ["owner", "idempotency_key"], unique=True)
    op.create_index("ix_batches_created_at_id", "batches", ["created_at", "id"])
    op.create_index("ix_batches_owner_created_at_id", "batches", ["owner", "created_at", "id"])
    op.create_table(
        "batch_items",
        sa.Column(
            "batch_id",
            sa.Uuid,
            sa.ForeignKey("batches.id", ondelete="CASCADE", name="fk_batch_items_batch_id_batches"),
            primary_key=True,
        ),
        sa.Column("thing", sa.Integer, primary_key=True),
        sa.Column("variation", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("request_id", sa.Uuid, nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("updated_at", UtcTime, nullable=False),
    )
    op.create_index("ix_batch_items_request_id", "batch_items", ["request_id"])


def downgrade() -> None:
    op.drop_table("batch_items")
    op.drop_table("batches")
