"""Where a request's trace goes on: its own context, and that of its latest attempt. Old rows have none."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("requests", sa.Column("traceparent", sa.String(55)))
    op.add_column("requests", sa.Column("attempt_traceparent", sa.String(55)))


def downgrade() -> None:
    op.drop_column("requests", "attempt_traceparent")
    op.drop_column("requests", "traceparent")
