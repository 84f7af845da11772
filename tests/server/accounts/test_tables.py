"""The revisions under migrations/ make the tables that tables.py describes."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from lingbi.accounts.database import Database, parse_url
from lingbi.accounts.tables import metadata


def test_migrations_make_what_the_code_expects(tmp_path):
    database = Database(parse_url(f"sqlite:///{tmp_path}/accounts.db"))
    database.bring_up_to_date()
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
