"""The page server's application: Gradio's page, and the page's own small routes."""

import os
import secrets
from typing import Any

from lingbi_ui import stubs  # noqa: F401 - before gradio

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"

import gradio as gr  # noqa: E402 - it reads the environment when it is imported
from fastapi import FastAPI  # noqa: E402
from fastapi.responses import JSONResponse  # noqa: E402
from starlette.middleware.cors import CORSMiddleware  # noqa: E402

from lingbi_ui import page  # noqa: E402
from lingbi_ui.api import Api  # noqa: E402
from lingbi_ui.examples import FOLDER as EXAMPLES  # noqa: E402
from lingbi_ui.fence import Fence, fence  # noqa: E402
from lingbi_ui.logins import Logins  # noqa: E402
from lingbi_ui.origin import SameOrigin  # noqa: E402
from lingbi_ui.prefix import serve_below_prefixes  # noqa: E402
from lingbi_ui.settings import Settings  # noqa: E402
from lingbi_ui.talk import Talk  # noqa: E402

# How often Gradio checks for questions. Its default of 1000 times a second keeps 8 % of a core busy day and night.
QUEUE_LOOK_S = 0.02
PROGRESS_LOOK_S = 1.0  # and how often for progress to report: this page reports none through Gradio


def create_app(settings: Settings) -> FastAPI:
    """The application behind the gateway's `/`."""
    api = Api(settings)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
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
        return JSONResponse({"instance": instance} | summary(await api.state()))

    blocks = page.build(settings, Talk(settings, api))
    queue = blocks._queue  # Gradio has no settings for these
    queue.sleep_when_free, queue.progress_update_sleep_when_free = QUEUE_LOOK_S, PROGRESS_LOOK_S
    fence(blocks)
    serve_below_prefixes()
    app.add_middleware(CORSMiddleware, allow_origins=())  # Gradio adds its own, for every website, where there is none
    app.add_middleware(SameOrigin)
    app.add_middleware(Fence)
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        auth=Logins(settings.login_file).admits if settings.login_file else None,
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
    return mounted


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """What the line at the top shows of a server's /ready: phase, part of it (0 to 1), model."""
    weights = found.get("weights") or {}
    total = weights.get("total_bytes")
    part = weights["done_bytes"] / total if total else found.get("progress", 0)
    return {"phase": found["phase"], "part": part, "model": found.get("model")}
