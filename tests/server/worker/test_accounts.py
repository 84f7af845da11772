"""What a worker clears away of a database that all hosts share."""

import time

import pytest

from lingbi.accounts.database import Database
from lingbi.accounts.entries import Counts, Entry
from lingbi.accounts.ledger import counting
from lingbi.accounts.quotas.use import add_use
from lingbi.accounts.tables import quota_use, usage_hours
from lingbi.worker.accounts import bring_ledger

YEARS_S = 10 * 365 * 86400


@pytest.fixture
def settings(settings, tmp_path):
    return settings.model_copy(update={"state_dir": tmp_path})


def test_a_host_whose_clock_is_years_ahead_deletes_nobodys_use(service, postgres, monkeypatch):
    database = Database(postgres.url)
    database.bring_up_to_date()
    ledger = bring_ledger(service, database)
    entry = Entry("r1", time.time(), "alice", "demo", 200, Counts(1, completion_tokens=5))
    with database.begin() as connection:
        add_use(connection, database, [entry], {}.get, ledger.zone)
        counting.add(connection, [entry], ledger.zone)
    real = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: real() + YEARS_S)
        ledger.count_rest()  # clears away first of all
    with database.read() as connection:
        found = {table.name: len(connection.execute(table.select()).all()) for table in (quota_use, usage_hours)}
    assert found == {"quota_use": 2, "usage_hours": 1}
    service.quotas.stop()
    database.engine.dispose()
