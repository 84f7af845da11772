"""POST /v1/completions: continued text, for those who bring their own prompt."""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request

from lingbi.engine.progress import Step
from lingbi.http.events import Event, prompt_comment
from lingbi.http.exchange import Events, Exchange, first_and_rest, read_asked
from lingbi.http.presence import unless_gone
from lingbi.http.protocol.answers import Completion, TextChoice
from lingbi.http.protocol.requests import CompletionRequest
from lingbi.http.service import Service


async def completions(service: Service, request: Request) -> Events | Completion:
    """Continue one prompt or several, whole or as events."""
    body = await read_asked(service, request, CompletionRequest)
    exchange = CompletionExchange(service, request, body)
    is_streamed = False
    try:
        if service.must_wait:
            is_streamed = True
            return Events(exchange, exchange.events_when_loaded(exchange.begun_events))
        if body.stream:
            first = await unless_gone(request, exchange.begin(0))
            is_streamed = True  # the response closes the exchange
            return Events(exchange, exchange.events(first))
        return await unless_gone(request, exchange.whole())
    finally:
        if not is_streamed:
            exchange.close()


class CompletionExchange(Exchange[CompletionRequest]):
    """Prompts and their continuations."""

    id_prefix, prompt_field = "cmpl", "prompt"

    async def begin(self, index: int) -> AsyncIterator[Step]:
        """The steps of a prompt's answer, the first of them made already."""
        await self.bind()
        with self.naming_prompt():
            prompt = await self.generator.text_prompt(self.body.prompt[index])
            answer = await self.start(prompt, self.body.max_tokens or 16)
        return await first_and_rest(self.steps(answer))

    async def whole(self) -> Completion:
        tasks = [asyncio.ensure_future(self._choice(index)) for index in range(len(self.body.prompt))]
        try:
            choices = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return Completion(**self.head, choices=choices, usage=self.usage())

    async def _choice(self, index: int) -> TextChoice:
        text, reason = "", None
        async for step in await self.begin(index):
            text += step.text
            reason = step.finish_reason
        return TextChoice(index=index, text=text, finish_reason=reason)

    async def begun_events(self) -> AsyncIterator[Event]:
        """The events of the answer, which has begun."""
        return self.events(await self.begin(0))

    async def events(self, first: AsyncIterator[Step]) -> AsyncIterator[Event]:
        """The chunks of all answers, one prompt after the other, as JSON."""
        chunk = self.chunks(Completion)
        for index in range(len(self.body.prompt)):
            async for step in first if index == 0 else await self.begin(index):
                if step.prompt:
                    yield prompt_comment(step.prompt)
                if step.text or step.finish_reason:
                    yield chunk([TextChoice(index=index, text=step.text, finish_reason=step.finish_reason)])
        self.conclude()
        if self.is_usage_wanted:
            yield chunk([], self.usage())
