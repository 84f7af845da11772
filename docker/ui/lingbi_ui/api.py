"""The API as the page uses it: streamed answers, and how the server is."""

import json
import time
from collections.abc import AsyncIterator

import httpx

from lingbi_ui.settings import Settings

CONNECT_TIMEOUT_S = 10
STATE_TIMEOUT_S = 3
STATE_AGE_S = 1.0


class AnswerFault(Exception):
    """No answer, or not a whole one. code: the name of its sentence; message: the server's own words."""

    def __init__(self, code: str, message: str = "", is_refused: bool = False):
        super().__init__(code)
        self.code, self.message, self.is_refused = code, message, is_refused


class Api:
    """One client for all visitors."""

    def __init__(self, settings: Settings):
        self.settings = settings
        timeout = httpx.Timeout(settings.answer_timeout_s, connect=CONNECT_TIMEOUT_S)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=4)
        self.client = httpx.AsyncClient(base_url=settings.api_url, timeout=timeout, limits=limits, trust_env=False)
        self._state, self._asked = {}, 0.0

    async def answer(self, messages: list, options: dict) -> AsyncIterator[dict]:
        """Stream an answer: {"text": piece}, and last {"finish_reason": why}. Raises AnswerFault."""
        model = (await self.state()).get("model") or ""
        body = {"model": model, "messages": messages, "stream": True} | options
        begun = False
        try:
            async with self.client.stream(
                "POST", "/v1/chat/completions", json=body, headers=self._headers()
            ) as response:
                if response.status_code != 200:
                    raise _fault(response.status_code, await response.aread())
                async for line in response.aiter_lines():
                    if line.startswith("data: {"):
                        begun = True
                        yield _piece(json.loads(line.removeprefix("data: ")))
        except httpx.ReadTimeout:
            raise AnswerFault("error_timeout") from None
        except httpx.TransportError:
            raise AnswerFault("error_broken" if begun else "error_away") from None

    async def state(self) -> dict:
        """The body of /ready, at most a second old; {"phase": "away"} where no server answers."""
        if time.monotonic() - self._asked > STATE_AGE_S:
            self._asked = time.monotonic()
            self._state = await self._ask_state()
        return self._state

    async def find_fault(self) -> str | None:
        """Why questions could not be asked now, or None: the server is asked for its models with the page's key."""
        try:
            response = await self.client.get("/v1/models", headers=self._headers(), timeout=STATE_TIMEOUT_S)
        except httpx.HTTPError as error:
            return f"{self.settings.api_url} does not answer: {type(error).__name__}"
        return None if response.status_code == 200 else f"{self.settings.api_url} answers {response.status_code}"

    def _headers(self) -> dict:
        return {"Authorization": f"Bearer {self.settings.api_key()}"}

    async def _ask_state(self) -> dict:
        try:
            found = (await self.client.get("/ready", timeout=STATE_TIMEOUT_S)).json()
            return found if "phase" in found else {"phase": "away"}
        except (httpx.HTTPError, ValueError, TypeError):
            return {"phase": "away"}


def _piece(event: dict) -> dict:
    if "error" in event:
        raise AnswerFault("error_engine_error", event["error"].get("message", ""))
    choice = event["choices"][0] if event.get("choices") else {}
    piece = {"text": (choice.get("delta") or {}).get("content") or ""}
    return piece | ({"finish_reason": choice["finish_reason"]} if choice.get("finish_reason") else {})


def _fault(status: int, body: bytes) -> AnswerFault:
    """The fault that a refusal means to a visitor."""
    try:
        error = json.loads(body)["error"]
        code, message = error["code"], error["message"]
    except (ValueError, LookupError, TypeError):
        code, message = None, ""
    if code in ("context_length_exceeded", "invalid_image", "request_too_large"):
        return AnswerFault(f"error_{code}", message, is_refused=True)
    if status == 429:
        return AnswerFault("error_busy", message)
    if status == 401:
        return AnswerFault("error_invalid_api_key", message)
    if status in (502, 503):
        return AnswerFault("error_not_ready", message)
    if status in (408, 504):
        return AnswerFault("error_timeout", message)
    if status >= 500:
        return AnswerFault("error_engine_error", message)
    return AnswerFault("error_refused", message, is_refused=True)
