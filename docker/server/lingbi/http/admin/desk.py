"""What the routes of /v1/admin share: who may use them, their bodies, the database in a thread, and its refusals."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from lingbi.accounts.database import NO_DATABASE, Database, DatabaseAway
from lingbi.accounts.keys.changes import Exists, Unknown, Unwise
from lingbi.accounts.keys.terms import BadTerm
from lingbi.accounts.keys.wishes import Reader
from lingbi.accounts.opening import zone_of
from lingbi.api_errors import (
    BadRequest,
    ClientGone,
    Conflict,
    Refusal,
    UnknownAccount,
)
from lingbi.http.middleware.door import ACCOUNT
from lingbi.http.protocol.faults import bad_request
from lingbi.http.protocol.json_reading import read_json
from lingbi.http.service import Service
from lingbi.model.catalogue import served_name

log = logging.getLogger(__name__)
FIELDS = {"until": "ends_at"}  # of JSON, for what the command line calls otherwise
Body = TypeVar("Body", bound=BaseModel)
Result = TypeVar("Result")


async def body_of(request: Request, kind: type[Body]) -> Body:
    """The request's JSON; no body is an empty object. Raises BadRequest, which names the field."""
    try:
        sent = await request.body()
    except ClientDisconnect:
        raise ClientGone from None
    data = read_json(sent) if sent.strip() else {}
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise bad_request(error, data) from None


class Desk:
    """The accounts as a worker's administrators reach them."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.zone = zone_of(service.settings)

    def now(self) -> float:
        """The database's time, by which keys end."""
        return self.service.keys.clock.now()

    def reader(self) -> Reader:
        """Reads what administrators wish for."""
        return Reader(self.zone, self.now(), served_name)

    async def read(self, work: Callable[[Database], Result]) -> Result:
        """What the work finds in the database; it runs in a thread. Raises a Refusal or DatabaseAway."""
        return await run_in_threadpool(self._translated, work)

    async def change(self, request: Request, what: str, work: Callable[[Database], Result]) -> Result:
        """The same of work that changes accounts; this worker knows of it when this returns, others a second later.

        what: for the log, which says who did it.
        """

        def changed() -> Result:
            result = self._translated(work)
            self.service.keys.look()
            return result

        result = await run_in_threadpool(changed)
        log.info("the administrator %s: %s", request.scope[ACCOUNT].name, what)
        return result

    def _translated(self, work: Callable[[Database], Result]) -> Result:
        source = self.service.keys.source
        try:
            if source is None:
                raise DatabaseAway(NO_DATABASE)
            return work(source.database)
        except (BadTerm, Exists, Unknown, Unwise) as fault:
            raise refusal_of(fault) from None


def unpublished(models: list[str] | None) -> list[str]:
    """Those that are no published models: folders of the lab's own, or slips. models: None for all."""
    return [name for name in models or () if served_name(name) is None]


def refusal_of(fault: Exception) -> Refusal:
    """What a client is told of a change that cannot be made."""
    if isinstance(fault, BadTerm):
        field = FIELDS.get(fault.param, fault.param)
        return BadRequest(f"{field}: {fault.sentence}", field)
    if isinstance(fault, Unknown):
        return UnknownAccount(str(fault))
    return Conflict(str(fault))
