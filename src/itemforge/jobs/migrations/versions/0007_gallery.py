"""What people pick: favourites and collections; and what is deleted for good."""

import sqlalchemy as sa
from alembic import op

from itemforge.jobs.clock import UtcTime

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_DELETED = sa.text("deleted_at IS NOT NULL")


def upgrade() -> None:
    op.add_column("requests", sa.Column("erased_at", UtcTime))
    op.create_index(
        "ix_requests_deleted", "requests", ["deleted_at"], postgresql_where=_DELETED, sqlite_where=_DELETED
    )
    op.create_table(
        "favourites",
        sa.Column("owner", sa.String(200), primary_key=True),
        sa.Column("request_id", sa.Uuid, _of("favourites", "request_id", "requests"), primary_key=True),
        sa.Column("created_at", UtcTime, nullable=False),
    )
    op.create_index("ix_favourites_request_id", "favourites", ["request_id"])
    op.create_table(
        "collections",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("created_at", UtcTime, nullable=False),
        sa.Column("updated_at", UtcTime, nullable=False),
    )
    op.create_index("uq_collections_owner_name", "collections", ["owner", "name"], unique=True)
    op.create_table(
        "collection_items",
        sa.Column(
            "collection_id",
            sa.Uuid,
            _of("collection_items", "collection_id", "collections"),
            primary_key=True,
        ),
        sa.Column("request_id", sa.Uuid, _of("collection_items", "request_id", "requests"), primary_key=True),
        sa.Column("added_at", UtcTime, nullable=False),
    )
    op.create_index("ix_collection_items_request_id", "collection_items", ["request_id"])


def _of(table: str, column: str, other: str) -> sa.ForeignKey:
    return sa.ForeignKey(f"{other}.id", ondelete="CASCADE", name=f"fk_{table}_{column}_{other}")


def downgrade() -> None:
    for table in ("collection_items", "collections", "favourites"):
        op.drop_table(table)
    op.drop_index("ix_requests_deleted", "requests")
    op.drop_column("requests", "erased_at")
