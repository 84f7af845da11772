"""What a request passes once its body is read, with real quotas and a real ledger."""

import asyncio
import time
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest

from lingbi.accounts.database import DatabaseAway
from lingbi.accounts.facts import KeyFacts, Limit
from lingbi.accounts.ledger.ledger import Ledger
from lingbi.accounts.ledger.spool import Spool
from lingbi.accounts.quotas.holds import Holds
from lingbi.accounts.quotas.use import add_use
from lingbi.api_errors import OverQuota
from lingbi.http.accounts.entry import let_in
from lingbi.http.admission.quotas import Quotas
from lingbi.http.middleware.accounting import RECORD
from lingbi.http.middleware.door import ACCOUNT, ASKER
from lingbi.http.protocol.requests import CompletionRequest
from lingbi.http.request_log import Record
from lingbi.turns import Asker

MIDNIGHT, UTC = 1_777_593_600, ZoneInfo("UTC")
BODY = CompletionRequest(model="model", prompt="hello")


@pytest.mark.parametrize("period", ["minute", "day"])
@pytest.mark.parametrize("is_away", [False, True])
def test_a_request_counts_in_the_period_in_which_it_is_let_in(service, store, tmp_path, monkeypatch, period, is_away):
    """However long its body took to come. While the database is away, a worker goes by what it knows."""
    key = KeyFacts("alice", limits=(Limit("key", "alice", "requests", period, 1),))
    holds, spool = Holds(store.database, "worker", UTC), Spool(tmp_path / "journals", 1 << 20)

    def charge(connection, entries):
        add_use(connection, store.database, entries, {"alice": key}.get, UTC)

    ledger = Ledger(store.database, spool, UTC, charge=charge, charged=holds.own.count)
    service.quotas = Quotas(holds, "local")

    def ask(arrived, now):
        """A request that has ended and is counted before the next one; whether it was let in."""
        monkeypatch.setattr(time, "time", lambda: float(now))
        record = Record("id", "POST", "/v1/completions", "", key="alice", model="model", at=arrived)
        record.use = spool.open(record)
        scope = {ACCOUNT: key, ASKER: Asker("alice", 16), RECORD: record}
        try:
            asyncio.run(let_in(service, SimpleNamespace(scope=scope), BODY))
        except OverQuota:
            record.status = 429
        record.end_use(record.status or 200)
        service.end_quota(record)
        ledger.count()
        return record.status is None

    if is_away:

        def fail(*arguments):
            raise DatabaseAway("away")

        monkeypatch.setattr(holds, "take", fail)
    for now, let_in_then in (
        (MIDNIGHT, [True, False, False]),
        (MIDNIGHT + 86_399.9996, [period == "minute", True, False]),
    ):
        assert [ask(MIDNIGHT - 1, now + second) for second in range(3)] == let_in_then
        assert [standing.used for standing in holds.standings(key)] == [1]
    spool.close()
