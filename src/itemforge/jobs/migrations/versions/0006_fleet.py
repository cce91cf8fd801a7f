"""What workers tell of themselves, and which failed requests an operator has settled."""

import sqlalchemy as sa
from alembic import op

from itemforge.jobs.clock import UtcTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_unsettled = sa.text("status = 'Failed' AND settled_at IS NULL AND deleted_at IS NULL")


def upgrade() -> None:
    op.add_column("workers", sa.Column("facts", sa.JSON))
    op.add_column("requests", sa.Column("settled_at", UtcTime))
    op.create_index(
        "ix_requests_unsettled",
        "requests",
        ["finished_at"],
        postgresql_where=_unsettled,
        sqlite_where=_unsettled,
    )


def downgrade() -> None:
    op.drop_index("ix_requests_unsettled", "requests")
    op.drop_column("requests", "settled_at")
    op.drop_column("workers", "facts")
