"""What a worker has of files and batches: a store, and a runner that asks lines."""

import asyncio
import os
import re
import secrets
import socket
from collections.abc import Mapping
from concurrent.futures import Future

from starlette.types import ASGIApp

from lingbi.accounts.database import Database
from lingbi.batch.store import store_of
from lingbi.http.batch.runner import Names, Runner
from lingbi.http.service import Service
from lingbi.placement import record

ALIASES = "LINGBI_GATEWAY_ALIASES"  # the gateway's setting, which it judges; a machine's parts share their environment


def bring_store(service: Service, database: Database) -> None:
    """Have a service keep files and batches."""
    service.store = store_of(service.settings, database)


def start_runner(service: Service, app: ASGIApp, loop: asyncio.AbstractEventLoop) -> Future[None]:
    """Have a worker that is ready ask the lines of batches; called from another thread than its loop's."""
    assert service.store
    settings = service.settings
    worker = f"{socket.gethostname()}:{settings.port + settings.worker}:{secrets.token_hex(4)}"
    runner = Runner(service, app, service.store, worker, names_of(service))
    return asyncio.run_coroutine_threadsafe(runner.run(), loop)


def names_of(service: Service, environment: Mapping[str, str] = os.environ) -> Names:
    """The models of this installation, and their aliases. Raises ConfigurationError."""
    file = service.settings.placement_file
    beside = {assigned.model for assigned in record.read(file)} if file else set()
    pairs = (part.partition("=") for part in re.split(r"[,\s]+", environment.get(ALIASES, "")))
    return Names(frozenset({service.readiness.model, *beside}), {alias: model for alias, _, model in pairs if model})
