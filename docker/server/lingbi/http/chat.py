"""POST /v1/chat/completions."""

from collections.abc import AsyncIterator

from pydantic import BaseModel
from starlette.requests import Request

from lingbi.api_errors import BadRequest
from lingbi.engine.grammar.vocabulary import piece_bytes
from lingbi.engine.progress import Step
from lingbi.http.events import Event, prompt_comment
from lingbi.http.exchange import Events, Exchange, first_and_rest, read_asked
from lingbi.http.middleware.door import ASKER
from lingbi.http.presence import unless_gone
from lingbi.http.protocol.answers import (
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatMessage,
    ChunkChoice,
    Delta,
    Logprobs,
    TokenLogprob,
    TopLogprob,
)
from lingbi.http.protocol.requests import ChatRequest
from lingbi.http.service import Service, chat_prompt
from lingbi.images.loader import image_urls
from lingbi.turns import Asker

LEAST_LOGPROB = -9999.0  # the reference API's number for a token that cannot come


async def chat_completions(service: Service, request: Request) -> Events | BaseModel:
    """Answer a conversation, whole or as events."""
    body = await read_asked(service, request, ChatRequest)
    if body.top_logprobs and not body.logprobs:
        raise BadRequest("top_logprobs: needs logprobs to be true", "top_logprobs")
    return await ChatExchange(service, request, body).answer()


class ChatExchange(Exchange[ChatRequest]):
    """A conversation and its answer."""

    id_prefix, prompt_field = "chatcmpl", "messages"

    async def answer(self) -> Events | BaseModel:
        """The whole answer or, where the request asks for one, a stream, which closes this exchange when it ends."""
        is_streamed = False
        try:
            if self.service.must_wait:
                is_streamed = True
                return Events(self, self.events_when_loaded(self.begun_events))
            with self.naming_prompt():
                steps = await unless_gone(self.request, self.begin())
            if self.body.stream:
                is_streamed = True
                return Events(self, self.events(steps))
            return await unless_gone(self.request, self.whole(steps))
        finally:
            if not is_streamed:
                self.close()

    async def begin(self) -> AsyncIterator[Step]:
        """The answer's steps, the first of them made already."""
        body, service = self.body, self.service
        await self.bind()
        asked = body.max_completion_tokens or body.max_tokens
        logprobs = max(body.top_logprobs or 0, 1) if body.logprobs else None
        turns = body.turns
        urls = image_urls(turns)
        self.record.pictures = len(urls)
        asker: Asker = self.request.scope[ASKER]
        prompt, times = await chat_prompt(
            self.generator, service.images, turns, urls, self.observe_decoding, key=asker.name
        )
        if times.encode_s is not None:
            self.record.encode_s = times.encode_s
            service.metrics.image_encode.observe(times.encode_s)
        answer = await self.start(prompt, asked, logprobs)
        return await first_and_rest(self.steps(answer))

    async def begun_events(self) -> AsyncIterator[Event]:
        """The events of the answer, which has begun."""
        with self.naming_prompt():
            return self.events(await self.begin())

    def observe_decoding(self, seconds: float) -> None:
        """Charge the seconds that decoding one image took to the request and its key."""
        self.record.decode_s = (self.record.decode_s or 0.0) + seconds
        self.service.metrics.image_decode.observe(seconds)
        self.service.metrics.key_decode.labels(self.record.key or "").inc(seconds)

    async def whole(self, steps: AsyncIterator[Step]) -> BaseModel:
        """The answer in the route's form."""
        text, logprobs, reason = "", list[TokenLogprob](), None
        async for step in steps:
            text += step.text
            logprobs += self.logprobs(step)
            reason = step.finish_reason
        self.prove()
        choice = ChatChoice(
            message=ChatMessage(content=text),
            logprobs=Logprobs(content=logprobs) if self.body.logprobs else None,
            finish_reason=reason,
        )
        return ChatCompletion(**self.head, choices=[choice], usage=self.usage())

    async def events(self, steps: AsyncIterator[Step]) -> AsyncIterator[Event]:
        """The chunks of the answer, as JSON."""
        chunk = self.chunks(ChatChunk)
        has_begun = False
        async for step in steps:
            if step.prompt:
                yield prompt_comment(step.prompt)
                continue
            if not has_begun:  # with the first token, so that a client's first chunk is the first token's time
                has_begun = True
                yield chunk([ChunkChoice(delta=Delta(role="assistant", content=""))])
            if step.text or (self.body.logprobs and step.token_ids):
                logprobs = Logprobs(content=self.logprobs(step)) if self.body.logprobs else None
                yield chunk([ChunkChoice(delta=Delta(content=step.text), logprobs=logprobs)])
            if step.finish_reason:
                yield chunk([ChunkChoice(delta=Delta(), finish_reason=step.finish_reason)])
        self.prove()
        self.conclude()
        if self.is_usage_wanted:
            yield chunk([], self.usage())

    def prove(self) -> None:
        """Note that an image was answered, so that the watchdog need not ask."""
        if self.record.pictures:
            self.service.vitals.prove()

    def logprobs(self, step: Step) -> list[TokenLogprob]:
        """The step's log probabilities in the API's form."""
        if not step.logprobs:
            return []
        return [self._logprob(token, tops) for token, tops in zip(step.token_ids, step.logprobs, strict=False)]

    def _logprob(self, token_id: int, tops: dict[int, float]) -> TokenLogprob:
        count = self.body.top_logprobs or 0
        best = sorted(tops.items(), key=lambda item: -item[1])[:count]
        own = self._top(token_id, tops[token_id])
        return TokenLogprob(**own.model_dump(), top_logprobs=[self._top(*item) for item in best])

    def _top(self, token_id: int, logprob: float) -> TopLogprob:
        data = piece_bytes(self.generator.tokenizer.model.model.convert_ids_to_tokens(token_id))
        token = data.decode("utf-8", "backslashreplace")
        return TopLogprob(token=token, bytes=list(data), logprob=max(logprob, LEAST_LOGPROB))
