"""A request's path through the engine: its body goes in, an answer or events come out, and its times are recorded."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from lingbi.api_errors import BadRequest, ClientGone, Refusal, TooLong, UnknownModel, UnsupportedEncoding
from lingbi.engine.generation import Answer, Generator, Step
from lingbi.engine.progress import PromptProgress
from lingbi.engine.prompts import Prompt, answer_room
from lingbi.http.middleware.accounting import GONE, RECORD
from lingbi.http.protocol.answers import PromptTokensDetails, Usage
from lingbi.http.protocol.faults import bad_request
from lingbi.http.protocol.requests import Sampled
from lingbi.http.request_log import Record
from lingbi.http.sampling_options import GREEDY, engine_options, stop_words
from lingbi.http.service import Service

INLINE_BYTES = 64 << 10  # larger bodies are parsed in a thread
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
Body = TypeVar("Body", bound=BaseModel)
Asked = TypeVar("Asked", bound=Sampled)
Done = TypeVar("Done")


async def read_body(request: Request, model: type[Body]) -> Body:
    """The request's JSON as a model.

    Raises BadRequest, which names the field; UnsupportedEncoding; and ClientGone when the client leaves before the body
    is complete.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        raise UnsupportedEncoding(
            f"the body is sent with Content-Encoding: {encoding[:60]}, and only identity is read; send it as it is",
            headers={"Accept-Encoding": "identity"},
        )
    try:
        body = await request.body()
    except ClientDisconnect:
        raise ClientGone from None
    if len(body) <= INLINE_BYTES:
        return _parsed(body, model)
    return await asyncio.get_running_loop().run_in_executor(None, _parsed, body, model)


def _parsed(body: bytes, model: type[Body]) -> Body:
    body = body.removeprefix(BYTE_ORDER_MARK)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise bad_request(error, body) from None


async def read_asked(service: Service, request: Request, model: type[Asked]) -> Asked:
    """A request to the engine, for a model that is served. Raises what read_body and the checks below raise."""
    body = await read_body(request, model)
    check_model(service, body.model)
    check_fields(body)
    return body


def check_model(service: Service, model: str) -> None:
    """Refuse a model that is not served."""
    served = service.readiness.model
    if model != served:
        raise UnknownModel(f"the model {model[:100]!r} is not served here; {served!r} is", "model")


def check_fields(body: Sampled) -> None:
    """Refuse fields that go with others that the request does not have. Raises BadRequest."""
    if body.stream_options and not body.stream:
        raise BadRequest("stream_options: only with stream set to true", "stream_options")


async def unless_gone(request: Request, work: Awaitable[Done]) -> Done:
    """The result of a coroutine; cancelled, with ClientGone, when the client leaves first."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


class Exchange(Generic[Asked]):
    """What all routes that use the engine have in common.

    id_prefix: how their answers' ids begin; prompt_field: the field of their requests that holds the prompt.
    """

    id_prefix = ""
    prompt_field = ""
    ending = "data: [DONE]\n\n"  # of a stream

    def __init__(self, service: Service, request: Request, body: Asked) -> None:
        self.service, self.request, self.body = service, request, body
        self.record: Record = request.scope[RECORD]
        self.record.stream = bool(body.stream)
        self.answers: list[Answer] = []
        self.cached_tokens = 0  # of the prompts
        self.is_told = False  # whether a stream has reached its last event

    @property
    def generator(self) -> Generator:
        """The worker's generator; the door lets no request in before there is one."""
        assert self.service.generator is not None
        return self.service.generator

    @contextmanager
    def naming_prompt(self) -> Iterator[None]:
        """Lets the refusal of a prompt that is too long name its field, which the engine does not know."""
        try:
            yield
        except TooLong as refusal:
            refusal.param = self.prompt_field
            raise

    async def start(self, prompt: Prompt, max_tokens: int | None, logprobs: int | None = None) -> Answer:
        """Start an answer when an engine instance is free."""
        generator, record = self.generator, self.record
        room = answer_room(len(prompt.ids), max_tokens, generator.session_len)
        record.prompt_tokens = (record.prompt_tokens or 0) + len(prompt.ids)
        options = engine_options(self.body, room, generator.engine.stop_words, logprobs)
        waited_from = record.elapsed()
        is_repeatable = self.body.seed is not None and options.top_k != GREEDY
        answer = await generator.start(prompt, options, stop_words(self.body), is_repeatable)
        self.answers.append(answer)
        record.queue_s = record.elapsed() - waited_from
        self.service.metrics.queue_wait.observe(record.queue_s)
        self.service.metrics.prompt_tokens.inc(len(prompt.ids))
        self.service.metrics.reused_tokens.inc(answer.place.step)
        self.cached_tokens += answer.place.step
        return answer

    async def steps(self, answer: Answer) -> AsyncIterator[Step]:
        """The steps of an answer, while its times and counts are recorded."""
        record, metrics = self.record, self.service.metrics
        began = None
        async for step in answer:
            if began is None and step.token_ids:
                began = record.elapsed()
                if record.first_token_s is None:
                    record.first_token_s = began
                    metrics.first_token.observe(began)
            metrics.completion_tokens.inc(len(step.token_ids))
            record.completion_tokens = (record.completion_tokens or 0) + len(step.token_ids)
            if step.finish_reason:
                record.finish_reason = step.finish_reason
                made = len(answer.token_ids) - 1
                if began is not None and made > 0:
                    metrics.token_time.observe((record.elapsed() - began) / made)
            yield step

    @property
    def head(self) -> dict[str, Any]:
        """What an answer, or every event of one, begins with."""
        return {"id": f"{self.id_prefix}-{self.record.id}", "model": self.body.model, "created": int(time.time())}

    def usage(self) -> Usage:
        """The request's tokens so far."""
        prompt, answer = self.record.prompt_tokens or 0, self.record.completion_tokens or 0
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=answer,
            total_tokens=prompt + answer,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=self.cached_tokens),
        )

    @property
    def is_usage_wanted(self) -> bool:
        """Whether a stream is to end with the request's usage."""
        return bool(self.body.stream_options and self.body.stream_options.include_usage)

    def chunks(self, kind: type[BaseModel]) -> "MakeChunk":
        """A function of choices (and usage) that makes the JSON of one event of this exchange."""
        head = self.head
        # OpenAI's chunks have "usage": null when usage was asked for, and no such field otherwise.
        left_out = None if self.is_usage_wanted else {"usage"}

        def chunk(choices: Sequence[BaseModel], usage: Usage | None = None) -> str:
            return kind(**head, choices=choices, usage=usage).model_dump_json(exclude=left_out)

        return chunk

    def failure(self, refusal: Refusal) -> "Event":
        """The last event of a stream that ends early, which says why."""
        return json.dumps(refusal.body())

    def close(self) -> None:
        """Stop whatever the engine still runs for this request."""
        for answer in self.answers:
            answer.close()


MakeChunk = Callable[..., str]


class Events(StreamingResponse):
    """Server-sent events of an exchange, which is closed however the stream ends."""

    def __init__(self, exchange: Exchange[Any], events: "AsyncIterator[Event]") -> None:
        super().__init__(_encoded(exchange, events), media_type="text/event-stream")
        self.headers["Cache-Control"] = "no-cache"
        self.headers["X-Accel-Buffering"] = "no"  # nginx would hold the events back
        self._exchange = exchange

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
            if not self._exchange.is_told:  # it returns when the client leaves, and raises otherwise
                self._exchange.record.status = GONE
        finally:
            self._exchange.close()


@dataclass(frozen=True)
class Named:
    """An event with a name, besides its data as JSON."""

    name: str
    data: str


@dataclass(frozen=True)
class Comment:
    """A line of a stream that clients pass over (HTML Living Standard, 9.2.6), and that keeps its connection alive."""

    text: str


Event = str | Named | Comment  # a str is the data of an event that has no name


def prompt_comment(progress: PromptProgress) -> Comment:
    """What a stream says while a prompt is computed, which takes seconds on a CPU."""
    return Comment(f"prompt {progress.done_tokens}/{progress.all_tokens}")


async def _encoded(exchange: Exchange[Any], events: AsyncIterator[Event]) -> AsyncIterator[str]:
    try:
        async for event in events:
            yield _written(event)
    except Refusal as refusal:  # the status is sent already; the OpenAI client raises on this event
        exchange.record.error, exchange.record.reason = refusal.code, refusal.reason
        exchange.is_told = True
        yield _written(exchange.failure(refusal))
        return
    exchange.is_told = True
    yield exchange.ending


def _written(event: Event) -> str:
    if isinstance(event, Comment):
        return f": {event.text}\n\n"
    if isinstance(event, Named):
        return f"event: {event.name}\ndata: {event.data}\n\n"
    return f"data: {event}\n\n"


async def first_and_rest(steps: AsyncIterator[Step]) -> AsyncIterator[Step]:
    """The first step, waited for, and all of them: errors before it still have their own status."""
    first = await steps.__anext__()

    async def all_steps() -> AsyncIterator[Step]:
        yield first
        async for step in steps:
            yield step

    return all_steps()
