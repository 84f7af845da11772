"""What a visitor reads who is not let in: one sentence in the language of the browser."""

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import Scope

from lingbi_ui.words import language_of, say

RETRY_AFTER_S = 5


def refusal(scope: Scope, status: int, word: str, **values: object) -> JSONResponse:
    """The answer with this status, and the sentence under `detail`, where Gradio's script looks for it."""
    language = language_of(Headers(scope=scope).get("accept-language", ""))
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status in (429, 503) else {}
    return JSONResponse({"detail": say(language, word, **values)}, status, headers)
