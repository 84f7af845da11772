"""The page server's application: Gradio's page, and the page's own small routes."""

import os
import secrets

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"

import gradio as gr  # noqa: E402 - it reads the environment when it is imported
from fastapi import FastAPI  # noqa: E402
from fastapi.responses import JSONResponse  # noqa: E402

from lingbi_ui import page  # noqa: E402
from lingbi_ui.api import Api  # noqa: E402
from lingbi_ui.logins import Logins  # noqa: E402
from lingbi_ui.settings import Settings  # noqa: E402
from lingbi_ui.talk import Talk  # noqa: E402


def create_app(settings: Settings) -> FastAPI:
    """The application behind the gateway's `/`."""
    api = Api(settings)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    instance = secrets.token_hex(8)

    @app.get("/live")
    async def live():
        return JSONResponse({"status": "ok"})

    @app.get("/health")
    async def health():
        fault = await api.find_fault()
        return JSONResponse({"status": fault or "ok"}, 503 if fault else 200)

    @app.get("/state")
    async def state():
        found = await api.state()
        weights = found.get("weights") or {}
        total = weights.get("total_bytes")
        part = weights["done_bytes"] / total if total else found.get("progress", 0)
        return JSONResponse({"instance": instance, "phase": found["phase"], "part": part, "model": found.get("model")})

    blocks = page.build(settings, Talk(settings, api))
    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        auth=Logins(settings.login_file).is_right if settings.login_file else None,
        allowed_paths=[str(page.FOLDER / "examples")],
        show_error=False,
        max_file_size=f"{settings.max_picture_mib}mb",
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        i18n=page.I18N,
        theme=page.theme(),
        css_paths=[page.FOLDER / "look" / "page.css"],
        head=page.head(),
    )
