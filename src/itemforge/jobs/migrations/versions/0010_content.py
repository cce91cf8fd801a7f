"""Prompts with words of the block list: what a key may do with them, and which of them were drawn."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("content", sa.String(8)))
    op.add_column("requests", sa.Column("flagged", sa.Text))


def downgrade() -> None:
    op.drop_column("requests", "flagged")
    op.drop_column("api_keys", "content")
