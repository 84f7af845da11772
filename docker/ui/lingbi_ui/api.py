"""The API as the page uses it: streamed answers, and the server's state."""

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Generic, TypeVar

import httpx

from lingbi_ui.conversation import Message
from lingbi_ui.images import aside
from lingbi_ui.settings import ConfigurationError, Settings

CONNECT_TIMEOUT_S = 10
STATE_TIMEOUT_S = 3
STATE_AGE_S, HEALTH_AGE_S = 1.0, 5.0
PROMPT_COMMENT = re.compile(r": prompt (\d+)/([1-9]\d*)")
Piece = dict[str, Any]
Value = TypeVar("Value")
log = logging.getLogger("uvicorn.error")


class AnswerFault(Exception):
    """No answer, or an incomplete one. code: the name of the sentence to show; message: the server's own words."""

    def __init__(self, code: str, message: str = "", is_refused: bool = False):
        super().__init__(code)
        self.code, self.message, self.is_refused = code, message, is_refused


class Aged(Generic[Value]):
    """The result of `find`, refreshed once it is older than age_s; callers share a refresh that is in progress."""

    def __init__(self, find: Callable[[], Awaitable[Value]], age_s: float):
        self.find, self.age_s = find, age_s
        self._last: tuple[Value, float] | None = None  # and when it was found
        self._lock = asyncio.Lock()

    async def get(self) -> Value:
        async with self._lock:
            if self._last is None or time.monotonic() - self._last[1] > self.age_s:
                value = await self.find()
                self._last = value, time.monotonic()
            return self._last[0]


class Api:
    """One client for all visitors."""

    def __init__(self, settings: Settings):
        self.settings = settings
        timeout = httpx.Timeout(settings.answer_timeout_s, connect=CONNECT_TIMEOUT_S)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=4)
        self.client = httpx.AsyncClient(base_url=settings.api_url, timeout=timeout, limits=limits, trust_env=False)
        self.model: str | None = None  # the last name that the server reported
        self._state, self._fault = Aged(self._ask_state, STATE_AGE_S), Aged(self._find_fault, HEALTH_AGE_S)

    async def answer(self, messages: list[Message], options: dict[str, Any]) -> AsyncGenerator[Piece, None]:
        """Stream an answer: {"text": piece}, and last {"finish_reason": why}. Raises AnswerFault.

        Before the first piece, a server that is slow over the prompt reports its progress: {"text": "", "prompt": share}.
        """
        body = {"model": await self._model_name(), "messages": messages, "stream": True} | options
        content = await aside(lambda: json.dumps(body).encode())
        begun = False
        try:
            async with self.client.stream(
                "POST", "/v1/chat/completions", content=content, headers=self._headers()
            ) as response:
                if response.status_code != 200:
                    raise _said(_fault(response.status_code, await response.aread()))
                async for line in response.aiter_lines():
                    if told := PROMPT_COMMENT.fullmatch(line):
                        yield {"text": "", "prompt": int(told[1]) / int(told[2])}
                    if line.startswith("data: {"):
                        begun = True
                        yield _piece(json.loads(line.removeprefix("data: ")))
        except httpx.ReadTimeout:
            raise AnswerFault("error_timeout") from None
        except httpx.TransportError:
            raise AnswerFault("error_broken" if begun else "error_away") from None

    async def state(self) -> dict[str, Any]:
        """The body of /ready, at most a second old; {"phase": "away"} where no server answers. "model": the last known."""
        return {"model": self.model} | await self._state.get()

    async def can_ask(self) -> bool:
        """Whether the server accepts the page's key; if not, the page's log says why."""
        return await self._fault.get() is None

    async def _model_name(self) -> str:
        found = await self.state()
        model: str | None = found["model"]
        if not model:
            raise AnswerFault("error_away" if found["phase"] == "away" else "error_not_ready")
        return model

    async def _find_fault(self) -> str | None:
        """Why questions cannot be asked now, or None; this asks the server for its models with the page's key."""
        try:
            response = await self.client.get("/v1/models", headers=self._headers(), timeout=STATE_TIMEOUT_S)
            fault = None if response.status_code == 200 else f"answers {response.status_code}"
        except httpx.HTTPError as error:
            fault = f"does not answer: {type(error).__name__}"
        except AnswerFault:
            fault = "cannot be asked without the page's key"
        if fault:
            log.info("%s %s", self.settings.api_url, fault)
        return fault

    def _headers(self) -> dict[str, str]:
        try:
            key = self.settings.api_key()
            return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        except ConfigurationError as error:
            log.error("%s", error)
            raise AnswerFault("error_invalid_api_key") from None

    async def _ask_state(self) -> dict[str, Any]:
        try:
            found = (await self.client.get("/ready", timeout=STATE_TIMEOUT_S)).json()
            found = found if "phase" in found else {"phase": "away"}
            self.model = found.get("model") or self.model
            return {key: value for key, value in found.items() if key != "model" or value}
        except (httpx.HTTPError, ValueError, TypeError):
            return {"phase": "away"}


def _piece(event: dict[str, Any]) -> Piece:
    if "error" in event:
        raise AnswerFault("error_engine_error", event["error"].get("message", ""))
    choice = event["choices"][0] if event.get("choices") else {}
    piece = {"text": (choice.get("delta") or {}).get("content") or ""}
    return piece | ({"finish_reason": choice["finish_reason"]} if choice.get("finish_reason") else {})


def _said(fault: AnswerFault) -> AnswerFault:
    """The fault. Logs the server's own words first, because visitors get a sentence in their language instead."""
    log.info("no answer (%s): %s", fault.code, fault.message[:500])
    return fault


def _fault(status: int, body: bytes) -> AnswerFault:
    """The fault that tells a visitor about a refusal."""
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
