"""A request's path through the engine: its body goes in, an answer or events come out, and its times are recorded."""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from lingbi.accounts.entries import GOOD
from lingbi.accounts.facts import KeyFacts
from lingbi.api_errors import BadRequest, ModelNotAllowed, Refusal, TooLong, UnknownModel
from lingbi.engine.answers import Answer
from lingbi.engine.bound import BoundAnswer
from lingbi.engine.generation import Generator
from lingbi.engine.grammar.forms import Form
from lingbi.engine.grammar.matcher import Matcher
from lingbi.engine.progress import Step
from lingbi.engine.prompts import Prompt, answer_room
from lingbi.http.accounts.entry import let_in
from lingbi.http.bodies import Asked, read_body
from lingbi.http.events import Comment, Event, written
from lingbi.http.middleware.accounting import GONE, RECORD
from lingbi.http.middleware.door import ACCOUNT, ASKER
from lingbi.http.presence import unless_gone
from lingbi.http.protocol.answers import PromptTokensDetails, Usage
from lingbi.http.protocol.requests import Sampled
from lingbi.http.request_log import Record
from lingbi.http.sampling_options import GREEDY, engine_options, stop_words
from lingbi.http.service import Service
from lingbi.http.waking import patience_of


async def read_asked(service: Service, request: Request, model: type[Asked]) -> Asked:
    """A request to the engine, for a model that is served. Raises what read_body and the checks below raise."""
    body = await read_body(service, request, model)
    check_model(service, request, body.model)
    check_fields(body)
    await let_in(service, request, body)
    await _until_loaded(service, request, bool(body.stream))
    return body


async def _until_loaded(service: Service, request: Request, is_streamed: bool) -> None:
    """Wait until the model is loaded. A stream tells its client meanwhile how far that is, so it waits once it has begun
    (`Exchange.events_when_loaded`), unless its client says how long it waits. Raises NotReady and ClientGone."""
    patience_s = patience_of(request.headers)
    if service.waking and not service.must_wait:
        service.waking.come()
    elif service.waking and (patience_s is not None or not is_streamed):
        record: Record = request.scope[RECORD]
        began = record.elapsed()
        await unless_gone(request, service.waking.wait(patience_s))
        record.wake_s = record.elapsed() - began


def check_model(service: Service, request: Request, model: str) -> None:
    """Refuse a model that is not served, or that the request's key may not use."""
    served = service.readiness.model
    if model != served:
        raise UnknownModel(f"the model {model[:100]!r} is not served here; {served!r} is", "model")
    request.scope[RECORD].model = served
    key: KeyFacts | None = request.scope.get(ACCOUNT)  # none where the list of models needs no key
    if key and not key.may_use(model):
        allowed = ", ".join(sorted(key.models or ())) or "none"
        raise ModelNotAllowed(f"this API key may not use the model {model!r}; it may use: {allowed}", "model")


def check_fields(body: Sampled) -> None:
    """Refuse fields that go with others that the request does not have. Raises BadRequest."""
    if body.stream_options and not body.stream:
        raise BadRequest("stream_options: only with stream set to true", "stream_options")


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
        self.answers: dict[Answer, float] = {}  # with their times in the engine, as the record's Stopwatch has them
        self.matcher: Matcher | None = None  # of the form that the answers are bound to
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

    @property
    def form(self) -> Form | None:
        """The form that the answers are bound to."""
        return self.body.form

    async def bind(self) -> None:
        """Make the grammar of the form that is asked for. Raises BadRequest, which names what is wrong with it."""
        if self.form:
            self.matcher = await self.generator.grammars.matcher(self.form)

    async def start(self, prompt: Prompt, max_tokens: int | None, logprobs: int | None = None) -> Answer:
        """Start an answer when an engine instance is free."""
        generator, record, metrics = self.generator, self.record, self.service.metrics
        room = answer_room(len(prompt.ids), max_tokens, generator.session_len)
        record.prompt_tokens = (record.prompt_tokens or 0) + len(prompt.ids)
        options = engine_options(self.body, room, generator.engine.stop_words, logprobs)
        waited_from = record.elapsed()
        is_repeatable = self.body.seed is not None and options.top_k != GREEDY
        is_unanswered = record.first_token_s is None  # of several prompts, the first may have been
        asker, words = self.request.scope[ASKER], stop_words(self.body)
        bound = partial(BoundAnswer, matcher=self.matcher.copy(), on_end=metrics.count_bound) if self.matcher else None
        answer = await generator.start(prompt, options, words, is_repeatable, asker, is_unanswered, bound)
        self.answers[answer] = record.engine.start()
        if record.use:
            record.use.run()
        record.queue_s = record.elapsed() - waited_from
        metrics.queue_wait.observe(record.queue_s)
        metrics.prompt_tokens.inc(len(prompt.ids))
        metrics.reused_tokens.inc(answer.place.step)
        record.cached_tokens = self.cached_tokens + answer.place.step
        return answer

    async def steps(self, answer: Answer) -> AsyncIterator[Step]:
        """The steps of an answer, while its times and counts are recorded."""
        record, metrics = self.record, self.service.metrics
        began = None
        async for step in answer:
            if began is None and step.token_ids:
                began = record.elapsed()
                self._note_first(answer)
                if record.first_token_s is None:
                    record.first_token_s = began
                    metrics.first_token.observe(began)
            metrics.completion_tokens.inc(len(step.token_ids))
            record.completion_tokens = (record.completion_tokens or 0) + len(step.token_ids)
            if step.finish_reason:
                record.engine.stop(self.answers[answer])
                record.finish_reason = step.finish_reason
                made = len(answer.token_ids) - 1
                if began is not None and made > 0:
                    metrics.token_time.observe((record.elapsed() - began) / made)
            yield step

    def _note_first(self, answer: Answer) -> None:
        """An answer has its first token, so that what waits in the background may begin."""
        background = self.service.background
        background.answer(id(self.record))
        background.begun(answer.instance)

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompts that kept sessions held."""
        return self.record.cached_tokens or 0

    def conclude(self) -> None:
        """All is known of a stream's answer; its account has it before its client has the end."""
        self.record.end_use(self.record.status or GOOD)

    @property
    def head(self) -> dict[str, Any]:
        """What an answer, or every event of one, begins with."""
        head = {"id": f"{self.id_prefix}-{self.record.id}", "model": self.body.model, "created": int(time.time())}
        return head | {"service_tier": self.body.served_tier}

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

    async def events_when_loaded(self, begin: Callable[[], Awaitable[AsyncIterator[Event]]]) -> AsyncIterator[Event]:
        """An answer's events if the model is still to be loaded, with comments until it is. begin: begins them."""
        assert self.service.waking is not None
        began = self.record.elapsed()
        async for comment in self.service.waking.comments():
            yield Comment(comment)
        self.record.wake_s = self.record.elapsed() - began
        async for event in await begin():
            yield event

    def chunks(self, kind: type[BaseModel]) -> "MakeChunk":
        """A function of choices (and usage) that makes the JSON of one event of this exchange."""
        head = self.head
        # OpenAI's chunks have "usage": null when usage was asked for, and no such field otherwise.
        left_out = (set() if self.is_usage_wanted else {"usage"}) | (
            set() if self.body.served_tier else {"service_tier"}
        )

        def chunk(choices: Sequence[BaseModel], usage: Usage | None = None) -> str:
            return kind(**head, choices=choices, usage=usage).model_dump_json(exclude=left_out)

        return chunk

    def failure(self, refusal: Refusal) -> Event:
        """The last event of a stream that ends early, which says why."""
        return json.dumps(refusal.body())

    def close(self) -> None:
        """Stop whatever the engine still runs for this request."""
        for answer, since in self.answers.items():
            self.record.engine.stop(since)
            answer.close()


MakeChunk = Callable[..., str]


class Events(StreamingResponse):
    """Server-sent events of an exchange, which is closed however the stream ends."""

    def __init__(self, exchange: Exchange[Any], events: AsyncIterator[Event]) -> None:
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


async def _encoded(exchange: Exchange[Any], events: AsyncIterator[Event]) -> AsyncIterator[str]:
    try:
        async for event in events:
            yield written(event)
    except Refusal as refusal:  # the status is sent already; the OpenAI client raises on this event
        exchange.record.error, exchange.record.reason = refusal.code, refusal.reason
        exchange.is_told = True
        exchange.record.end_use(refusal.status)
        yield written(exchange.failure(refusal))
        return
    exchange.is_told = True
    yield exchange.ending


async def first_and_rest(steps: AsyncIterator[Step]) -> AsyncIterator[Step]:
    """The first step, waited for, and all of them: errors before it still have their own status."""
    first = await steps.__anext__()

    async def all_steps() -> AsyncIterator[Step]:
        yield first
        async for step in steps:
            yield step

    return all_steps()
