"""The API as the page uses it: streamed answers, and the server's state."""

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx

from lingbi_ui.conversation import Message
from lingbi_ui.models import AWAY, Offer, default_of, offer_of
from lingbi_ui.settings import ConfigurationError, Settings

CONNECT_TIMEOUT_S = 10
STATE_TIMEOUT_S = 3
STATE_AGE_S, HEALTH_AGE_S = 1.0, 5.0
VISITOR_HEADER = "X-Lingbi-Visitor"  # whose use it is: the server believes it of the page's own key
PROMPT_COMMENT = re.compile(r": prompt (\d+)/([1-9]\d*)")
LOADING_COMMENT = re.compile(r": loading the model, (\d{1,3})%")
WAITING_COMMENT = ": waiting for the model's turn"
Piece = dict[str, Any]
Value = TypeVar("Value")
log = logging.getLogger("uvicorn.error")


class AnswerFault(Exception):
    """No answer, or an incomplete one. code: the name of the sentence to show; message: the server's own words; quota: the
    limit that is in the way, as the server tells it."""

    def __init__(
        self, code: str, message: str = "", is_refused: bool = False, quota: dict[str, Any] | None = None
    ) -> None:
        super().__init__(code)
        self.code, self.message, self.is_refused, self.quota = code, message, is_refused, quota


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
        self._offers: list[Offer] = []  # the last that were told
        self._state, self._fault = Aged(self._ask_state, STATE_AGE_S), Aged(self._find_fault, HEALTH_AGE_S)
        self._offer = Aged(self._ask_offers, STATE_AGE_S)

    async def answer(
        self, model: str, messages: list[Message], options: dict[str, Any], login: str | None = None
    ) -> AsyncGenerator[Piece, None]:
        """Stream a model's answer: {"text": piece}, and last {"finish_reason": why}. Raises AnswerFault.

        login: who asks, where the page has logins; the answer counts as theirs.
        Before the first piece, a server that is slow over the prompt reports its progress: {"text": "", "prompt": share}, and
        one that loads the model first {"text": "", "waking": share}, or None while another model still answers.
        """
        body = {"model": model, "messages": messages, "stream": True} | options
        content = await asyncio.to_thread(lambda: json.dumps(body).encode())
        begun = False
        try:
            async with self.client.stream(
                "POST", "/v1/chat/completions", content=content, headers=self._headers() | visitor_headers(login)
            ) as response:
                if response.status_code != 200:
                    raise _said(fault_of(response.status_code, await response.aread()))
                async for line in response.aiter_lines():
                    if line.startswith(":") and (progress := _progress(line)):
                        yield progress
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

    async def offers(self) -> list[Offer]:
        """The models to choose from, at most a second old; empty where there are not several. None is ready while no server
        answers."""
        return await self._offer.get()

    async def choose(self, picked: str) -> str:
        """The name of the model that answers. picked: the visitor's choice, empty for none. Raises AnswerFault."""
        offers = await self.offers()
        if offers:
            names = [offer["id"] for offer in offers]
            found = picked or default_of(offers)["id"]
        else:
            names = [await self._model_name()]
            found = picked or names[0]
        if found not in names:
            raise AnswerFault("error_model_gone")
        return str(found)

    async def can_ask(self) -> bool:
        """Whether the server accepts the page's key; if not, the page's log says why."""
        return await self._fault.get() is None

    async def _model_name(self) -> str:
        found = await self.state()
        model: str | None = found["model"]
        if not model:
            raise AnswerFault("error_away" if found["phase"] == "away" else "error_not_ready")
        return model

    async def _ask_offers(self) -> list[Offer]:
        try:
            response = await self.client.get("/v1/models", headers=self._headers(), timeout=STATE_TIMEOUT_S)
            found = [offer_of(entry) for entry in response.raise_for_status().json()["data"]]
            self._offers = found if len(found) > 1 else []
        except (httpx.HTTPError, AnswerFault, ValueError, LookupError, TypeError, AttributeError):
            return [offer | {"phase": AWAY, "part": 0.0} for offer in self._offers]  # can_ask says why
        return self._offers

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


def visitor_headers(login: str | None) -> dict[str, str]:
    """The header that names a login, which may be Chinese: percent-encoded, as a header holds ASCII only."""
    return {VISITOR_HEADER: quote(login, safe="@")} if login else {}


def _progress(line: str) -> Piece | None:
    """What a comment of a stream tells of an answer that has not begun."""
    if told := PROMPT_COMMENT.fullmatch(line):
        return {"text": "", "prompt": int(told[1]) / int(told[2])}
    if told := LOADING_COMMENT.fullmatch(line):
        return {"text": "", "waking": int(told[1]) / 100}
    return {"text": "", "waking": None} if line == WAITING_COMMENT else None


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


def fault_of(status: int, body: bytes) -> AnswerFault:
    """The fault that tells a visitor about a refusal."""
    try:
        error = json.loads(body)["error"]
        code, message, quota = error["code"], error["message"], error.get("quota")
    except (ValueError, LookupError, TypeError, AttributeError):
        code, message, quota = None, "", None
    if code in ("context_length_exceeded", "invalid_image", "request_too_large"):
        return AnswerFault(f"error_{code}", message, is_refused=True)
    if code in ("insufficient_quota", "rate_limit_exceeded"):
        return AnswerFault(f"error_{code}", message, quota=quota)
    if code == "model_not_found":
        return AnswerFault("error_model_gone", message)
    if code == "visitor_ended":
        return AnswerFault("error_visitor_ended", message)
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
