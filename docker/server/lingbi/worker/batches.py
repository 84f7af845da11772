"""What a worker has of files and batches: a store, and a runner that asks lines."""

import asyncio
import secrets
import socket
from concurrent.futures import Future

from starlette.types import ASGIApp

from lingbi.accounts.database import Database
from lingbi.batch.store import store_of
from lingbi.http.batch.runner import Runner
from lingbi.http.service import Service


def bring_store(service: Service, database: Database) -> None:
    """Have a service keep files and batches."""
    service.store = store_of(service.settings, database)


def start_runner(service: Service, app: ASGIApp, loop: asyncio.AbstractEventLoop) -> Future[None]:
    """Have a worker that is ready ask the lines of batches; called from another thread than its loop's."""
    assert service.store
    settings = service.settings
    worker = f"{socket.gethostname()}:{settings.port + settings.worker}:{secrets.token_hex(4)}"
    return asyncio.run_coroutine_threadsafe(Runner(service, app, service.store, worker).run(), loop)
