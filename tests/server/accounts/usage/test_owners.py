"""One owner's usage: all of it is given out, and none of it is left where it is erased; the sums stay."""

import json
from zoneinfo import ZoneInfo

import pytest

from lingbi.accounts.tables import usage_days, usage_hours, usage_months
from lingbi.accounts.usage import owners
from lingbi.accounts.usage.owners import NOBODY
from lingbi.errors import ConfigurationError
from tests.server.accounts.ledger.parts import sums
from tests.server.accounts.usage.rows import entries, expected, fill

UTC = ZoneInfo("UTC")
TABLES = (usage_hours, usage_days, usage_months)


@pytest.fixture
def found():
    return entries(UTC)


@pytest.fixture
def database(any_database, found):
    filled = fill(any_database, UTC, found)
    yield filled
    filled.engine.dispose()


def export(database, owner, key=None):
    with database.read() as connection:
        names = owners.names_of(connection, owner, key)
    return owners.export(database, names)


def erase(database, owner, key=None):
    with database.begin() as connection:
        names = owners.names_of(connection, owner, key)
        owners.erase(connection, database, names)
    return names


def of_keys(found, *names) -> int:
    return sum(entry.counts.requests for entry in found if entry.key in names)


def test_an_owners_rows_are_given_out(database, found):
    given = json.loads(json.dumps(export(database, "李")))
    assert [key["name"] for key in given["keys"]] == ["a", "b"]
    for name in ("usage_hours", "usage_days", "usage_months"):
        assert sum(row["requests"] for row in given[name]) == of_keys(found, "a", "b")
        assert {row["key"] for row in given[name]} == {"a", "b"}


def test_a_login_of_the_page_is_an_owner(database, found):
    given = export(database, "wang")
    assert {row["key"] for row in given["usage_days"]} == {"ui/wang"}


def test_what_is_erased_is_nobodys_and_the_sums_stay(database, found):
    before = {table: sums(database, table, ("model", "status")) for table in TABLES}
    assert erase(database, "李") == ["a", "b"]
    for table in TABLES:
        assert sums(database, table, ("model", "status")) == before[table]
        names = {key for (key,) in sums(database, table, ("key",))}
        assert names == {NOBODY, "=c", "ui/wang", "gone"}
    with pytest.raises(ConfigurationError, match="nobody has a key with the owner '李'"):
        export(database, "李")
    assert {key["owner"] + key["note"] for key in export(database, None, "a")["keys"]} == {""}


def test_what_two_had_at_one_hour_is_nobodys_together(database, found):
    erase(database, "李")
    erase(database, None, "gone")  # a key that is not in the table of keys any more
    right = expected(found, ("model", "status"), lambda entry: entry.key in ("a", "b", "gone"), UTC)
    for table in TABLES:
        rows = sums(database, table, ("key", "model", "status"))
        assert {subject[1:]: counts for subject, counts in rows.items() if subject[0] == NOBODY} == right


@pytest.mark.parametrize("owner", ["", "nobody", NOBODY, "'; drop table keys; --", "%"])
def test_an_owner_that_is_not_there_is_refused(database, owner, found):
    for act in (export, erase):
        with pytest.raises(ConfigurationError, match="nobody has a key"):
            act(database, owner)
    assert sum(counts.requests for counts in sums(database).values()) == sum(entry.counts.requests for entry in found)
