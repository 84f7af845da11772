"""Asks an engine in this process for answers in a form, and says what is wrong with them."""

import json
from functools import partial

from lingbi.engine.bound import BoundAnswer
from lingbi.engine.grammar.forms import Form
from lingbi.http.protocol.requests import ChatRequest
from lingbi.http.sampling_options import engine_options
from tests.schemas import CHOICES, REGEXES, SCHEMAS, regex_fault, schema_fault
from tests.server.engine.masked import prompt_of

LIMIT, LONG = 160, 400  # tokens
QUESTION = "Describe the picture as JSON."
FORMS = (
    {name: Form("schema", schema, "schema") for name, schema in SCHEMAS.items()}
    | {name: Form("regex", pattern, "regex") for name, pattern in REGEXES.items()}
    | {"choice": Form("choice", CHOICES, "choice")}
)
ENDS_S = 20


def fault(form: Form, answer: str) -> str | None:
    if form.kind == "schema":
        return schema_fault(form.source, json.loads(answer))
    return regex_fault(form.source, answer) if form.kind == "regex" else None if answer in form.source else answer


async def ask(generator, form, limit=LIMIT, question=QUESTION, stop=(), **options):
    """(the answer, its text) of a question in a form."""
    asked = ChatRequest.model_validate({"model": "", "messages": question, "temperature": 0} | options)
    tallies = []
    kind = partial(BoundAnswer, matcher=await generator.grammars.matcher(form), on_end=tallies.append)
    config = engine_options(asked, limit, generator.engine.stop_words, None)
    answer = await generator.start(prompt_of(generator, question), config, stop, kind=kind)
    text = "".join([step.text async for step in answer])
    answer.close()
    await answer.task
    assert tallies == [answer.tally]
    return answer, text


async def ask_text(generator, form, **options) -> str:
    return (await ask(generator, form, **options))[1]


async def unbound(generator) -> str:
    asked = ChatRequest.model_validate({"model": "", "messages": QUESTION, "temperature": 0})
    answer = await generator.start(
        prompt_of(generator, QUESTION), engine_options(asked, 40, generator.engine.stop_words, None)
    )
    return "".join([step.text async for step in answer])
