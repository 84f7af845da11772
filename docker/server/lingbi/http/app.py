"""The worker's ASGI application: its routes, its error handlers, and the middleware around both."""

import logging
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from sqlalchemy.exc import DataError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from lingbi.accounts.database import DatabaseAway
from lingbi.accounts.facts import KeyFacts
from lingbi.api_errors import BadRequest, ClientGone, DatabaseSilent, EngineFault, Refusal
from lingbi.http.accounts.usage import usage
from lingbi.http.admin.batches import batch_routes
from lingbi.http.admin.desk import Desk
from lingbi.http.admin.groups import group_routes
from lingbi.http.admin.keys import key_routes
from lingbi.http.admin.queue import admin_queue
from lingbi.http.admin.usage import admin_usage
from lingbi.http.batch.batches import Batches
from lingbi.http.batch.files import Files
from lingbi.http.bodies import meant_model
from lingbi.http.chat import chat_completions
from lingbi.http.completions import completions
from lingbi.http.describing.document import describe
from lingbi.http.exchange import check_model
from lingbi.http.middleware.accounting import GONE, Accounting
from lingbi.http.middleware.cross_origin import cross_origin
from lingbi.http.middleware.door import ACCOUNT, Door, refuse
from lingbi.http.protocol.answers import Model, ModelList
from lingbi.http.protocol.status import Live, Ready
from lingbi.http.responses import responses
from lingbi.http.service import Service

log = logging.getLogger(__name__)
CHAT, COMPLETIONS, RESPONSES, MODELS = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/models"
MODEL, USAGE = "/v1/models/{model}", "/v1/usage"
ADMIN_USAGE, ADMIN_QUEUE = "/v1/admin/usage", "/v1/admin/queue"
ADMIN = "/v1/admin/"
ALLOWED_MODELS = "X-Lingbi-Models"
DATABASE_AGAIN_S = 5
OPEN_ROUTES = ("/live", "/health", "/ready", "/metrics")
API_PATHS = (CHAT, COMPLETIONS, RESPONSES, MODELS, MODEL.replace("{model}", "[^/]+"), USAGE, ADMIN_USAGE)
API_TAIL = re.compile(f"/(?:{'|'.join(path.removeprefix('/v1/') for path in API_PATHS)})$")


def create_app(service: Service) -> ASGIApp:
    """The worker's ASGI application; `service.take_engine` provides its engine later.

    It uses Starlette without FastAPI: the Door limits the bodies, and describing/ writes the document. FastAPI's
    models of an OpenAPI document would add half a second to every start.
    """

    routes = routes_of(service)
    app = Starlette(routes=routes, exception_handlers=FAULTS)
    app.router.redirect_slashes = False
    keyless_routes = (MODELS, MODEL) if service.settings.open_models else ()
    early_routes = [route.path for route in routes if route.path.startswith(ADMIN)]
    door = Door(app, service, OPEN_ROUTES, keyless_routes, (CHAT, COMPLETIONS, RESPONSES), early_routes)
    return Accounting(cross_origin(door, service.settings.allowed_origins), service.metrics, routes, OPEN_ROUTES)


def routes_of(service: Service) -> list[Route]:
    """All routes of a worker."""

    async def openapi(request: Request) -> Response:
        return JSONResponse(describe(service.readiness.model))

    parts = [
        _health(service),
        _models(service),
        _generation(service),
        _usage(service),
        _admin(service),
        _stored(service),
    ]
    return [*(route for part in parts for route in part), Route("/openapi.json", openapi)]


def _stored(service: Service) -> list[Route]:
    """The routes of files and batches, where there is a store for them."""
    if service.store is None:
        return []
    batches = Batches(service.store, service.look_at_batches)
    return [*Files(service.store).routes(), *batches.routes(), *batch_routes(service.store, service.look_at_batches)]


def _health(service: Service) -> list[Route]:
    async def live(request: Request) -> Response:
        return JSONResponse(Live().model_dump())

    async def ready(request: Request) -> Response:
        report = Ready(**service.readiness.report()).model_dump(exclude_none=True)
        is_ready = service.readiness.is_ready
        return JSONResponse(report, 200 if is_ready else 503, None if is_ready else {"Retry-After": "5"})

    async def metrics(request: Request) -> Response:
        return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return [Route(path, answer) for path, answer in zip(OPEN_ROUTES, (live, live, ready, metrics), strict=True)]


def _models(service: Service) -> list[Route]:
    served = Model(id=service.readiness.model, created=int(time.time()))

    async def models(request: Request) -> Response:
        key: KeyFacts | None = request.scope.get(ACCOUNT)
        listed = [served] if key is None or key.may_use(served.id) else []
        allowed = None if key is None or key.models is None else ",".join(map(quote, sorted(key.models)))
        headers = (
            None if allowed is None else {ALLOWED_MODELS: allowed}
        )  # for a gateway that lists several servers' models
        return JSONResponse(ModelList(data=listed).model_dump(), headers=headers)

    async def model(request: Request) -> Response:
        check_model(service, request, meant_model(service, request) or request.path_params["model"])
        return JSONResponse(served.model_dump())

    return [Route(MODELS, models), Route(MODEL, model)]


def _usage(service: Service) -> list[Route]:
    async def own_usage(request: Request) -> Response:
        return _sent(await usage(service, request))

    return [Route(USAGE, own_usage)]


def _generation(service: Service) -> list[Route]:
    async def chat(request: Request) -> Response:
        return _sent(await chat_completions(service, request))

    async def complete(request: Request) -> Response:
        return _sent(await completions(service, request))

    async def respond(request: Request) -> Response:
        return _sent(await responses(service, request))

    endpoints = {CHAT: chat, COMPLETIONS: complete, RESPONSES: respond}
    return [Route(path, endpoint, methods=["POST"]) for path, endpoint in endpoints.items()]


def _admin(service: Service) -> list[Route]:
    async def usage(request: Request) -> Response:
        return JSONResponse((await admin_usage(service, request)).model_dump(exclude_none=True))

    async def queue(request: Request) -> Response:
        return JSONResponse((await admin_queue(service, request)).model_dump())

    desk = Desk(service)
    return [Route(ADMIN_USAGE, usage), Route(ADMIN_QUEUE, queue), *key_routes(desk), *group_routes(desk)]


def _sent(answer: Response | BaseModel) -> Response:
    return answer if isinstance(answer, Response) else Response(answer.model_dump_json(), media_type="application/json")


async def _refusal(request: Request, error: Refusal) -> Response:
    return refuse(request.scope, error)


async def _gone(request: Request, error: ClientGone) -> Response:
    return Response(status_code=GONE)


async def _database_away(request: Request, error: DatabaseAway) -> Response:
    return refuse(request.scope, DatabaseSilent(str(error), headers={"Retry-After": str(DATABASE_AGAIN_S)}))


async def _unkept(request: Request, error: DataError) -> Response:
    log.info("%s: the database refuses what was sent: %s", request.url.path[:100], error.orig)
    return refuse(request.scope, BadRequest("what was sent holds a text that cannot be kept, such as one with U+0000"))


async def _http_error(request: Request, error: HTTPException) -> Response:
    path = request.url.path
    hint = _hint(path) if error.status_code == 404 else ""
    found = Refusal(f"{request.method} {path[:100]}: {error.detail}{hint}", headers=dict(error.headers or {}))
    found.status, found.code = error.status_code, "not_found" if error.status_code == 404 else None
    found.reason = f"http_{error.status_code}"
    return refuse(request.scope, found)


def _hint(path: str) -> str:
    """What a client whose base URL is a little wrong should ask instead; empty where the path ends like none of the API."""
    found = API_TAIL.search(re.sub("/+", "/", path).rstrip("/"))
    if not found:
        return ""
    return f"; the API is at /v1{found[0]}: let the client's base URL end with /v1, with nothing after it"


async def _server_error(request: Request, error: Exception) -> Response:
    log.error("%s failed", request.url.path[:100], exc_info=error)
    return refuse(request.scope, EngineFault("the server failed on this request; its log has the details"))


FAULTS: dict[Any, Callable[..., Any]] = {
    Refusal: _refusal,
    ClientGone: _gone,
    DatabaseAway: _database_away,
    DataError: _unkept,
    HTTPException: _http_error,
    Exception: _server_error,
}
