"""What Alembic runs: the migrations, on the connection that it was given and in its transaction."""

from __future__ import annotations

from alembic import context

from serving.gateway.store.tables import Base

connection = context.config.attributes["connection"]
if connection is None:
    raise RuntimeError("migrations run through serving.gateway.store.migrate, which gives a connection")
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    compare_type=True,
    # SQLite can't alter most things in place: Alembic then makes the table anew.
    render_as_batch=True,
    # Our connections begin transactions themselves, so SQLite's schema changes are undone with them too.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
