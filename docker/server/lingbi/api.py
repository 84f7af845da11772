"""The worker's application: its routes, its errors, and the door in front of both."""

import logging
import time

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import Request

from lingbi.chat import chat_completions, check_model
from lingbi.completions import completions
from lingbi.door import GONE, RECORD, Door, refuse
from lingbi.faults import ClientGone, EngineFault, Refusal
from lingbi.openapi import describe
from lingbi.protocol import Live, Model, ModelList, Ready
from lingbi.service import Service

log = logging.getLogger(__name__)
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def create_app(service: Service) -> Door:
    """The worker's ASGI application; `service.take_engine` gives it its engine later."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    _add_health(app, service)
    _add_models(app, service)
    _add_generation(app, service)
    _add_errors(app)

    @app.get("/openapi.json")
    async def openapi(request: Request):
        return JSONResponse(describe(service.readiness.model))

    app.add_middleware(RouteNames)
    return Door(app, service, (CHAT, COMPLETIONS))


class RouteNames:
    """Notes the route of a request in its record: metrics by path would grow with every path asked for."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        try:
            await self.app(scope, receive, send)
        finally:
            if scope["type"] == "http" and scope.get("route"):
                scope[RECORD].route = scope["route"].path


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/live")
    async def live(request: Request):
        return JSONResponse(Live().model_dump())

    @app.get("/ready")
    async def ready(request: Request):
        report = Ready(**service.readiness.report()).model_dump(exclude_none=True)
        is_ready = service.readiness.is_ready
        return JSONResponse(report, 200 if is_ready else 503, None if is_ready else {"Retry-After": "5"})

    @app.get("/metrics")
    async def metrics(request: Request):
        return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)


def _add_models(app: FastAPI, service: Service) -> None:
    served = Model(id=service.readiness.model, created=int(time.time()))

    @app.get("/v1/models")
    async def models(request: Request):
        return JSONResponse(ModelList(data=[served]).model_dump())

    @app.get("/v1/models/{model}")
    async def model(request: Request):
        check_model(service, request.path_params["model"])
        return JSONResponse(served.model_dump())


def _add_generation(app: FastAPI, service: Service) -> None:
    @app.post(CHAT, response_model=None)
    async def chat(request: Request):
        return _sent(await chat_completions(service, request))

    @app.post(COMPLETIONS, response_model=None)
    async def complete(request: Request):
        return _sent(await completions(service, request))


def _sent(answer) -> Response:
    return answer if isinstance(answer, Response) else Response(answer.model_dump_json(), media_type="application/json")


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def refusal(request: Request, error: Refusal):
        return refuse(request.scope, error)

    @app.exception_handler(ClientGone)
    async def gone(request: Request, error: ClientGone):
        return Response(status_code=GONE)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException):
        found = Refusal(f"{request.method} {request.url.path[:100]}: {error.detail}", headers=error.headers)
        found.status, found.code = error.status_code, "not_found" if error.status_code == 404 else None
        found.reason = f"http_{error.status_code}"
        return refuse(request.scope, found)

    @app.exception_handler(Exception)
    async def server_error(request: Request, error: Exception):
        log.error("%s failed", request.url.path[:100], exc_info=error)
        return refuse(request.scope, EngineFault("the server failed on this request; its log has the details"))
