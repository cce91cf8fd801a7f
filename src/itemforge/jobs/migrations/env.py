"""Alembic's entry: runs inside the connection and transaction that `jobs.migrate` opened."""

from alembic import context

from itemforge.jobs.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
