"""What a worker has of the accounts: the ledger that counts what requests use, and the quotas that it counts for."""

import uuid
from collections.abc import Sequence

from sqlalchemy.engine import Connection

from lingbi.accounts.database import Database, now_of
from lingbi.accounts.entries import Entry
from lingbi.accounts.ledger.ledger import Ledger
from lingbi.accounts.ledger.spool import Spool
from lingbi.accounts.opening import folder_of, host_of, zone_of
from lingbi.accounts.quotas.holds import Holds
from lingbi.accounts.quotas.use import add_use, forget_use
from lingbi.accounts.usage.retention import Kept, remove_old
from lingbi.http.admission.quotas import Quotas
from lingbi.http.service import Service

MIB = 1 << 20


def bring_ledger(service: Service, database: Database) -> Ledger:
    """The ledger of a worker, in whose journals its service writes, and which counts for its quotas.

    Raises ConfigurationError for an unknown time zone.
    """
    settings, errors = service.settings, service.metrics.ledger_errors

    def on_error(kind: str) -> None:
        errors.labels(kind).inc()

    zone, kept = zone_of(settings), Kept(settings.usage_days, settings.usage_months)

    def tidy() -> bool:
        with database.begin() as connection:
            now = now_of(connection)
            forget_use(connection, now)
        return remove_old(database, kept, now, zone)

    def charge(connection: Connection, entries: Sequence[Entry]) -> None:
        add_use(connection, database, entries, service.keys.account, zone)

    spool = Spool(folder_of(settings) / "journals", settings.ledger_spool_mib * MIB, on_error)
    holds = Holds(database, f"{host_of(settings)}/{settings.worker}/{uuid.uuid4().hex[:8]}", zone)
    service.spool, service.database, service.quotas = spool, database, Quotas(holds, settings.quota_when_away)
    service.quotas.begin()
    service.metrics.ledger_waiting.set_function(lambda: spool.waiting)
    return Ledger(database, spool, zone, host_of(settings), charge, holds.own.count, on_error, tidy)
