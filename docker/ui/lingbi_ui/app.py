"""The page server's application: Gradio's page, and the page's own small routes."""

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator
from typing import Any

from lingbi_ui import stubs  # noqa: F401 - before gradio

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"

import gradio as gr  # noqa: E402 - it reads the environment when it is imported
from fastapi import FastAPI  # noqa: E402
from fastapi.responses import JSONResponse  # noqa: E402
from starlette.middleware.cors import CORSMiddleware  # noqa: E402
from starlette.routing import Mount  # noqa: E402

from lingbi_ui import page  # noqa: E402
from lingbi_ui.accounts.routes import routes as accounts  # noqa: E402
from lingbi_ui.api import Api  # noqa: E402
from lingbi_ui.examples import FOLDER as EXAMPLES  # noqa: E402
from lingbi_ui.failures import tell_failures_in_lines  # noqa: E402
from lingbi_ui.fence import fence  # noqa: E402
from lingbi_ui.guard.desk import Desk  # noqa: E402
from lingbi_ui.guard.gate import Gate  # noqa: E402
from lingbi_ui.guard.sessions import Sessions  # noqa: E402
from lingbi_ui.guard.stalls import tell_stalls  # noqa: E402
from lingbi_ui.guard.storage import Storage  # noqa: E402
from lingbi_ui.guard.uploads import Uploads  # noqa: E402
from lingbi_ui.guard.visitors import shares  # noqa: E402
from lingbi_ui.logins import Logins  # noqa: E402
from lingbi_ui.models import Offer, default_of  # noqa: E402
from lingbi_ui.origin import SameOrigin  # noqa: E402
from lingbi_ui.prefix import serve_below_prefixes  # noqa: E402
from lingbi_ui.settings import Settings  # noqa: E402
from lingbi_ui.talk import Talk  # noqa: E402

# How often Gradio checks for questions. Its default of 1000 times a second keeps 8 % of a core busy day and night.
QUEUE_LOOK_S = 0.05
PROGRESS_LOOK_S = 1.0  # and how often for progress to report: this page reports none through Gradio


def create_app(settings: Settings) -> FastAPI:
    """The application behind the gateway's `/`."""
    api = Api(settings)
    blocks = page.build(settings, Talk(settings, api))
    limits = shares(settings)
    storage = Storage(settings.files_dir, limits, settings.keep_files_h, settings.min_free_mib)
    desk = Desk(blocks, limits)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=_watching(storage, desk))
    instance = secrets.token_hex(8)

    @app.get("/live")
    async def live() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @app.get("/page-health")  # through the gateway, whose /health asks a server
    @app.get("/health")
    async def health() -> JSONResponse:
        can_ask = await api.can_ask()
        return JSONResponse({"status": "ok" if can_ask else "unavailable"}, 200 if can_ask else 503)

    @app.get("/state")
    async def state() -> JSONResponse:
        return JSONResponse({"instance": instance} | summary(await api.state(), await api.offers()))

    uploads = Uploads(settings, storage, limits)
    app.add_route("/gradio_api/upload", uploads.take, ["POST"])
    app.add_route("/gradio_api/upload_progress", uploads.tell, ["GET"])
    queue = blocks._queue  # Gradio has no settings for these
    queue.sleep_when_free, queue.progress_update_sleep_when_free = QUEUE_LOOK_S, PROGRESS_LOOK_S
    queue.ANALYTICS_MAX_EVENTS = 1  # Gradio makes statistics of all of them at every failure
    fence(blocks)
    tell_failures_in_lines()
    logins = Logins(settings.login_file) if settings.login_file else None
    sessions = Sessions(logins, settings.login_h) if logins else None
    app.router.routes.extend(accounts(settings, sessions))
    serve_below_prefixes()
    app.add_middleware(CORSMiddleware, allow_origins=())  # Gradio adds its own, for every website, where there is none
    app.add_middleware(Gate, desk=desk, shares=limits, sessions=sessions)
    app.add_middleware(SameOrigin)
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        auth=logins.admits if logins else None,
        allowed_paths=[str(EXAMPLES)],
        show_error=False,
        max_file_size=f"{settings.max_picture_mib}mb",
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        run_history=False,
        i18n=page.I18N,
        theme=page.theme(),
        css_paths=[page.FOLDER / "look" / "page.css"],
        head=page.head(settings),
    )
    if sessions is not None:
        gradios: Any = next(route.app for route in mounted.routes if isinstance(route, Mount))
        gradios.tokens = sessions
    return mounted


def _watching(storage: Storage, desk: Desk) -> Any:
    """A lifespan in which old files and unread answers are removed."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(storage.start)
        watches = [asyncio.create_task(work) for work in (storage.watch(), desk.watch(), tell_stalls())]
        yield
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)

    return lifespan


def summary(found: dict[str, Any], offers: list[Offer]) -> dict[str, Any]:
    """What the line at the top shows: phase, part of it (0 to 1), model. found: a server's /ready; offers: the models to
    choose from, with the same of each, if there are several."""
    if offers:
        return {name: default_of(offers)[name] for name in ("phase", "part")} | {
            "model": default_of(offers)["id"],
            "models": offers,
        }
    weights = found.get("weights") or {}
    total = weights.get("total_bytes")
    part = weights["done_bytes"] / total if total else found.get("progress", 0)
    return {"phase": found["phase"], "part": part, "model": found.get("model")}
