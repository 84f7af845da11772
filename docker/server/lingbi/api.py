"""lmdeploy's own FastAPI application, with a door in front of it.

What is added: an allow-list of routes, keys, 503 until ready, pictures loaded before the engine
is asked, errors with their real status in the OpenAI form, /live and /ready.
"""

import logging

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from lmdeploy.serve.openai import api_server
from lmdeploy.serve.openai.protocol import ChatCompletionRequest
from lmdeploy.vl import templates
from starlette.exceptions import HTTPException
from starlette.requests import Request

from lingbi.keys import is_known
from lingbi.pictures import PictureError, load_pictures
from lingbi.readiness import Readiness

log = logging.getLogger(__name__)

CHAT = "/v1/chat/completions"
API_ROUTES = ("/v1/models", CHAT, "/v1/completions", "/openapi.json")
HEALTH_ROUTES = ("/live", "/ready")
RETRY_AFTER_S = 5


def create_app(readiness: Readiness, keys: list) -> FastAPI:
    """The worker's ASGI application; `serve_engine` gives it its engine later."""
    app = api_server.app
    app.title, app.docs_url = "lingbi", None
    chat = api_server.chat_completions_v1
    app.router.routes = [route for route in app.router.routes if route.path in API_ROUTES and route.path != CHAT]
    app.add_api_route(CHAT, _with_pictures(chat), methods=["POST"], response_model=None)
    _add_health(app, readiness)
    _add_errors(app)
    app.add_middleware(Door, readiness=readiness, keys=keys)
    return app


def serve_engine(engine) -> None:
    """Give the application its engine."""
    api_server.VariableInterface.async_engine = engine
    # Pictures arrive decoded (load_pictures); lmdeploy's loader would open local paths.
    templates.load_image = lambda picture: picture


def next_session_id() -> int:
    """A session number that no request has, from lmdeploy's own counter."""
    api_server.VariableInterface.session_id += 1
    return api_server.VariableInterface.session_id


def _with_pictures(endpoint):
    async def chat_completions(request: ChatCompletionRequest, raw_request: Request):
        await load_pictures(request.messages)
        return await endpoint(request, raw_request)

    chat_completions.__doc__ = endpoint.__doc__
    return chat_completions


def _add_health(app: FastAPI, readiness: Readiness) -> None:
    @app.get("/live")
    async def live():
        """The process answers."""
        return {"status": "live"}

    @app.get("/ready")
    async def ready():
        """200 when a real picture question has been answered; else 503 with the phase."""
        return JSONResponse(readiness.report(), 200 if readiness.is_ready else 503)


def error_response(status: int, message: str, kind: str = "invalid_request_error", code=None, headers=None):
    """An error in the OpenAI form, with its real HTTP status."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    return JSONResponse({"error": error}, int(status), headers)


def _add_errors(app: FastAPI) -> None:
    # lmdeploy answers its own refusals with HTTP 200.
    api_server.create_error_response = lambda status, message: error_response(status, message)

    @app.exception_handler(PictureError)
    async def picture_error(request, error):
        return error_response(400, str(error), code="invalid_image")

    @app.exception_handler(RequestValidationError)
    async def validation_error(request, error):
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return error_response(400, f"{place}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def http_error(request, error):
        return error_response(error.status_code, str(error.detail), headers=error.headers)

    @app.exception_handler(Exception)
    async def server_error(request, error):
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return error_response(500, "the server failed on this request; its log has the details", "server_error")


class Door:
    """Checks the key, then whether the worker is ready; plain ASGI, so streams pass untouched."""

    def __init__(self, app, readiness: Readiness, keys: list):
        self.app, self.readiness, self.keys = app, readiness, keys

    async def __call__(self, scope, receive, send):
        refusal = self._refuse(scope) if scope["type"] == "http" else None
        await (refusal or self.app)(scope, receive, send)

    def _refuse(self, scope):
        if scope["path"] in HEALTH_ROUTES:
            return None
        if not is_known(_bearer(scope), self.keys):
            return error_response(
                401,
                "a valid API key is needed: send the header `Authorization: Bearer KEY`",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if not self.readiness.is_ready:
            return error_response(
                503,
                f"the model is not ready yet: {self.readiness.phase}",
                "server_error",
                "not_ready",
                {"Retry-After": str(RETRY_AFTER_S)},
            )
        return None


def _bearer(scope) -> str:
    headers = dict(scope["headers"])
    scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
