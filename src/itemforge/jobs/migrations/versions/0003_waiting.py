"""An index of the rows on the queue, which the relay counts by owner at each pick.

It is as small as the relay's window, whatever the backlog and the history are.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_WAITING = sa.text("status = 'Pending' AND published_at IS NOT NULL")


def upgrade() -> None:
    op.create_index(
        "ix_requests_waiting", "requests", ["owner"], postgresql_where=_WAITING, sqlite_where=_WAITING
    )


def downgrade() -> None:
    op.drop_index("ix_requests_waiting", "requests")
