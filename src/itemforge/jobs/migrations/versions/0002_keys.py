"""API keys; what a worker holds unclaimed; an index for one owner's requests.

Everything is added and nothing changed, so gateways of the version before run on beside this one.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    # requests before workers, in the order in which a heartbeat locks them: the other way round, this
    # migration and a running gateway would deadlock.
    op.create_index("ix_requests_owner_created_at_id", "requests", ["owner", "created_at", "id"])
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("rate", sa.Integer),
        sa.Column("quota", sa.Integer),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("last_used_at", _TIME),
        sa.Column("revoked_at", _TIME),
    )
    op.create_index("uq_api_keys_hash", "api_keys", ["hash"], unique=True)
    op.add_column("workers", sa.Column("held", sa.Integer, nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_index("ix_requests_owner_created_at_id", "requests")
    op.drop_column("workers", "held")
    op.drop_table("api_keys")
