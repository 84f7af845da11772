"""POST /v1/completions: text gone on with, for those who bring their own prompt."""

import asyncio

from starlette.requests import Request

from lingbi.http.chat import check_model
from lingbi.http.exchange import Events, Exchange, first_and_rest, prompt_comment, read_body, unless_gone
from lingbi.http.protocol import Completion, CompletionRequest, TextChoice
from lingbi.http.service import Service


async def completions(service: Service, request: Request):
    """Go on with one prompt or several, whole or as events."""
    body = await read_body(request, CompletionRequest)
    check_model(service, body.model)
    exchange = CompletionExchange(service, request, body)
    try:
        if body.stream:
            first = await unless_gone(request, exchange.begin(0))
            events = Events(exchange, exchange.events(first))
            exchange = None  # the response closes it
            return events
        return await unless_gone(request, exchange.whole())
    finally:
        if exchange:
            exchange.close()


class CompletionExchange(Exchange):
    """Prompts and how they go on."""

    id_prefix = "cmpl"

    @property
    def prompts(self) -> list:
        return [self.body.prompt] if isinstance(self.body.prompt, str) else self.body.prompt

    async def begin(self, index: int):
        """The steps of a prompt's answer, the first of them made already."""
        prompt = await self.service.generator.text_prompt(self.prompts[index])
        answer = await self.start(prompt, self.body.max_tokens or 16)
        return await first_and_rest(self.steps(answer))

    async def whole(self) -> Completion:
        tasks = [asyncio.ensure_future(self._choice(index)) for index in range(len(self.prompts))]
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

    async def events(self, first):
        """The chunks of all answers, one prompt after the other, as JSON."""
        chunk = self.chunks(Completion)
        for index in range(len(self.prompts)):
            async for step in first if index == 0 else await self.begin(index):
                if step.prompt:
                    yield prompt_comment(step.prompt)
                if step.text or step.finish_reason:
                    yield chunk([TextChoice(index=index, text=step.text, finish_reason=step.finish_reason)])
        if self.is_usage_wanted:
            yield chunk([], self.usage())
