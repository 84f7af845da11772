"""POST /v1/responses: chat completions in the form that newer clients ask for, without stored state."""

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request

from lingbi.api_errors import Refusal
from lingbi.engine.grammar.forms import Form
from lingbi.engine.progress import Step
from lingbi.http.chat import ChatExchange
from lingbi.http.events import Event, Named, prompt_comment
from lingbi.http.exchange import Events, read_asked
from lingbi.http.protocol.responses import (
    CachedTokens,
    IncompleteDetails,
    OutputMessage,
    OutputText,
    ResponseAnswer,
    ResponseError,
    ResponseRequest,
    ResponseUsage,
    Status,
    TextOptions,
)
from lingbi.http.service import Service


async def responses(service: Service, request: Request) -> Events | BaseModel:
    """Answer a conversation, whole or as events."""
    body = await read_asked(service, request, ResponseRequest)
    return await ResponseExchange(service, request, body).answer()


class ResponseExchange(ChatExchange):
    """A conversation and its answer, in the form of Responses."""

    id_prefix, prompt_field = "resp", "input"
    ending = ""

    def __init__(self, service: Service, request: Request, asked: ResponseRequest) -> None:
        super().__init__(service, request, asked.chat)
        self.asked, self.created_at = asked, int(time.time())
        self._sent = 0  # events

    async def whole(self, steps: AsyncIterator[Step]) -> ResponseAnswer:
        """The answer in the route's form."""
        text = "".join([step.text async for step in steps])
        self.prove()
        return self._report(self._ended, text)

    async def events(self, steps: AsyncIterator[Step]) -> AsyncIterator[Event]:
        """The events of the answer, as the reference orders them."""
        text, has_begun = "", False
        async for step in steps:
            if step.prompt:
                yield prompt_comment(step.prompt)
                continue
            if not has_begun:
                has_begun = True
                for event in self._opening():
                    yield event
            if step.text:
                text += step.text
                yield self._event("response.output_text.delta", **self._place, delta=step.text, logprobs=[])
        self.prove()
        self.conclude()
        for event in self._closing(text):
            yield event

    def failure(self, refusal: Refusal) -> Event:
        """The event that tells why a stream ends early."""
        answer = self._report("failed", "")
        answer.output, answer.error = [], ResponseError(code=refusal.code or "server_error", message=str(refusal))
        return self._event("response.failed", response=answer)

    def _opening(self) -> Iterator[Event]:
        for name in ("response.created", "response.in_progress"):
            yield self._event(name, response=self._report("in_progress"))
        yield self._event("response.output_item.added", output_index=0, item=self._item("in_progress"))
        yield self._event("response.content_part.added", **self._place, part=OutputText(text=""))

    def _closing(self, text: str) -> Iterator[Event]:
        status = self._ended
        yield self._event("response.output_text.done", **self._place, text=text, logprobs=[])
        yield self._event("response.content_part.done", **self._place, part=OutputText(text=text))
        yield self._event("response.output_item.done", output_index=0, item=self._item(status, text))
        yield self._event(f"response.{status}", response=self._report(status, text))

    def _event(self, name: str, **fields: Any) -> Named:
        data = _Event(type=name, sequence_number=self._sent, **fields)
        self._sent += 1
        return Named(name, data.model_dump_json())

    @property
    def _ended(self) -> Status:
        return "incomplete" if self.record.finish_reason == "length" else "completed"

    @property
    def _item_id(self) -> str:
        return f"msg-{self.record.id}"

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": self._item_id, "output_index": 0, "content_index": 0}

    def _item(self, status: Status, text: str | None = None) -> OutputMessage:
        content = [] if text is None else [OutputText(text=text)]
        return OutputMessage(id=self._item_id, status=status, content=content)

    @property
    def form(self) -> Form | None:
        return self.asked.form

    @property
    def _text_options(self) -> TextOptions:
        asked = self.asked.text.format if self.asked.text else None
        return TextOptions(format=asked.model_dump(by_alias=True, exclude_none=True)) if asked else TextOptions()

    def _report(self, status: Status, text: str | None = None) -> ResponseAnswer:
        """The whole answer or, without a text, what is known before it."""
        asked, usage = self.asked, self.usage()
        return ResponseAnswer(
            id=f"{self.id_prefix}-{self.record.id}",
            created_at=self.created_at,
            status=status,
            incomplete_details=IncompleteDetails() if status == "incomplete" else None,
            instructions=asked.instructions,
            max_output_tokens=asked.max_output_tokens,
            metadata=asked.metadata or {},
            model=asked.model,
            service_tier=self.body.served_tier,
            output=[] if text is None else [self._item(status, text)],
            temperature=asked.temperature,
            tools=asked.tools or [],
            text=self._text_options,
            top_p=asked.top_p,
            usage=None
            if text is None
            else ResponseUsage(
                input_tokens=usage.prompt_tokens,
                input_tokens_details=CachedTokens(cached_tokens=self.cached_tokens),
                output_tokens=usage.completion_tokens,
                total_tokens=usage.total_tokens,
            ),
        )


class _Event(BaseModel, extra="allow"):
    """What every event holds, and the fields of its own."""

    type: str
    sequence_number: int
