"""Alembic's entry: it runs the revisions on the connection that `Database` gives it, inside its transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
