"""However a bound answer ends, nothing stays behind, and sessions answer as before."""

import asyncio
import json
import threading
from functools import partial

import numpy as np
import pytest

from lingbi.api_errors import BadRequest, EngineFault
from lingbi.engine.bound import FIRST_AHEAD, BoundAnswer
from lingbi.engine.grammar.forms import Form
from lingbi.engine.grammar.matcher import Matcher
from lingbi.http.protocol.requests import ChatRequest
from lingbi.http.sampling_options import engine_options
from tests.schemas import closed
from tests.server.engine.bound_answers import ENDS_S, FORMS, LONG, QUESTION, ask, ask_text, unbound
from tests.server.engine.masked import generator_of, prompt_of

LATE_S = 0.2


@pytest.mark.parametrize("kept", [0, 2])
def test_sessions_answer_as_before_after_bound_answers(demo, kept):
    async def compare():
        generator = generator_of(demo, kept)
        first, plain = await ask(generator, FORMS["flat object"]), await unbound(generator)
        assert await ask_text(generator, FORMS["flat object"]) == first[1]
        assert await unbound(generator) == plain
        return generator

    generator = asyncio.run(compare())
    assert len(generator.sessions) == kept
    assert kept or not demo.sessions  # where none is kept, the engine holds none either


def test_a_stop_word_ends_a_bound_answer_too(demo):
    answer, text = asyncio.run(_stopped(demo))
    assert text == '{"name": "' and answer.finish_reason == "stop"


async def _stopped(engine):
    generator = generator_of(engine, kept=2)
    _, whole = await ask(generator, FORMS["flat object"])
    word = json.loads(whole)["name"]
    return await ask(generator, FORMS["flat object"], stop=[word])


async def break_made(monkeypatch, generator, form, name, broken) -> None:
    """Put `broken` in place of a method of matchers, once the next answer's is made: making it needs the method."""
    made = asyncio.get_running_loop().create_future()
    made.set_result(await generator.grammars.matcher(form))
    monkeypatch.setattr(generator.grammars, "matcher", lambda _: made)
    monkeypatch.setattr(Matcher, name, broken)


REFUSES_ALL = ("take", lambda matcher, token: False)
ALLOWS_NOTHING = ("allowed", lambda matcher: np.zeros(len(matcher.vocabulary.tokens), bool))


@pytest.mark.parametrize(
    ("texts", "broken"),
    [(["<s>"], REFUSES_ALL), (["<s>x", "y", "z"], REFUSES_ALL), (["<s>x", "y", "z"], ALLOWS_NOTHING)],
    ids=["forced", "chosen", "allows nothing"],
)
def test_a_grammar_that_stands_still_ends_its_answer_and_no_other(demo, monkeypatch, caplog, texts, broken):
    async def compare():
        generator, form = generator_of(demo, kept=2), Form("choice", texts, "choice")
        plain = await unbound(generator)
        assert await ask_text(generator, form) in texts
        await break_made(monkeypatch, generator, form, *broken)
        with pytest.raises(EngineFault):
            await asyncio.wait_for(ask(generator, form, 5), ENDS_S)
        monkeypatch.undo()
        assert len(generator.places.free) == 4 and not generator.runs
        assert await ask_text(generator, form) in texts and await unbound(generator) == plain

    asyncio.run(compare())
    assert "the grammar refuses the token" in caplog.text


@pytest.mark.parametrize("kept", [0, 2])
def test_a_grammar_that_fails_while_the_engine_runs_ahead_leaves_nothing_running(demo, monkeypatch, kept):
    async def compare():
        generator, form = generator_of(demo, kept), Form("regex", "(?s:.{400})", "regex")
        taken, take = [], Matcher.take

        def fails(matcher, token):
            taken.append(token)
            if len(taken) == FIRST_AHEAD * 3:  # in the middle of what the engine does next
                raise BadRequest("needs too much work")
            return take(matcher, token)

        await break_made(monkeypatch, generator, form, "take", fails)
        with pytest.raises(BadRequest):
            await ask(generator, form, ignore_eos=True)
        assert not demo.active and not demo.waiting
        monkeypatch.undo()
        assert await unbound(generator) == plain

    plain = asyncio.run(_unbound_alone(demo))
    asyncio.run(compare())
    assert kept or not demo.sessions


async def _unbound_alone(engine) -> str:
    return await unbound(generator_of(engine, kept=0))


@pytest.mark.parametrize("kept", [0, 2])
def test_a_client_that_leaves_before_the_first_token_leaves_nothing_behind(demo, caplog, kept):
    async def leave():
        generator = generator_of(demo, kept)
        form = Form("regex", "(?s:.{400})", "regex")
        kind = partial(BoundAnswer, matcher=await generator.grammars.matcher(form))
        asked = ChatRequest.model_validate({"model": "", "messages": QUESTION, "temperature": 0})
        config = engine_options(asked, 40, generator.engine.stop_words, None)
        answer = await generator.start(prompt_of(generator, QUESTION * 80), config, kind=kind)
        async for step in answer:
            assert step.prompt and not step.token_ids
            break
        answer.close()
        await asyncio.wait_for(answer.task, ENDS_S)
        assert len(generator.places.free) == 4 and not generator.runs

    asyncio.run(leave())
    assert not demo.active and not demo.waiting and len(demo.sessions) == (kept and 1)
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")], caplog.text


STOPPED = {"abcSTOPdef": "STOP", "STOPdef": "STOP", "abc<s>def": "<s>", "甲乙丙丁": "丙", "abc中": "中"}


def test_what_is_forced_behind_a_stop_word_does_not_count(demo):
    async def compare():
        generator = generator_of(demo, kept=2)
        for whole, word in STOPPED.items():
            answer, text = await ask(generator, Form("choice", [whole], "choice"), stop=["unseen", word])
            assert (text, answer.finish_reason) == (whole.partition(word)[0], "stop")
            written = answer.matcher.vocabulary.text(answer.token_ids).decode(errors="ignore")
            before_last = answer.matcher.vocabulary.text(answer.token_ids[:-1]).decode(errors="ignore")
            assert word in written and word not in before_last, (written, before_last)
            assert answer.tally.forced == len(answer.token_ids)

    asyncio.run(compare())


def test_nor_what_is_forced_behind_one_that_ends_with_a_chosen_token(demo):
    async def compare():
        generator = generator_of(demo, kept=2)
        form = Form("choice", ["xy!and much more", "xz!and much more"], "choice")
        _, whole = await ask(generator, form)
        answer, text = await ask(generator, form, stop=[whole[:2]])
        assert (text, answer.finish_reason) == ("", "stop")
        assert answer.matcher.vocabulary.text(answer.token_ids).decode() == whole[:2]

    asyncio.run(compare())


@pytest.mark.parametrize("kept", [0, 2])
def test_sessions_answer_as_before_after_stop_words_in_forced_text(demo, kept):
    schema = closed(**{"name": {"enum": ["red", "blue"]}, "and then this <s>": {"enum": [1, 2]}})
    form = Form("schema", schema, "schema")

    async def compare():
        generator = generator_of(demo, kept)
        (_, whole), plain = await ask(generator, form), await unbound(generator)
        for word in ('{"', '": "', '", "and', "then", "<s>", '": '):
            for _ in range(2):
                assert await ask_text(generator, form, stop=[word]) == whole.partition(word)[0]
                await asyncio.gather(*generator._closing)
                assert await unbound(generator) == plain, word
                assert await ask_text(generator, form) == whole, word
        return generator

    generator = asyncio.run(compare())
    assert len(generator.sessions) == kept
    assert kept or not demo.sessions


def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(demo):
    async def leave():
        generator = generator_of(demo, kept=0)
        form = Form("schema", {"type": "array", "items": {"type": "string"}, "minItems": 500}, "schema")
        kind = partial(BoundAnswer, matcher=await generator.grammars.matcher(form))
        asked = ChatRequest.model_validate({"model": "", "messages": QUESTION, "temperature": 0})
        config = engine_options(asked, 1500, generator.engine.stop_words, None)
        answer = await generator.start(prompt_of(generator, QUESTION), config, kind=kind)
        async for _ in answer:
            if len(answer.token_ids) > 20:
                break
        answer.close()
        await asyncio.wait_for(answer.task, 20)
        assert len(answer.progress.output.token_ids) < 1000
        assert len(generator.places.free) == 4 and not generator.runs

    asyncio.run(leave())
    assert not demo.sessions and not demo.active and not demo.waiting


def test_a_cancellation_that_comes_late_does_not_end_the_sessions_next_answer(demo, monkeypatch):
    async def leave():
        generator, has_begun, cancel = generator_of(demo, kept=1), threading.Event(), demo.cancel
        asked = ChatRequest.model_validate({"model": "", "messages": QUESTION, "temperature": 0, "ignore_eos": True})
        short, long = (engine_options(asked, limit, generator.engine.stop_words, None) for limit in (2, LONG))
        monkeypatch.setattr(demo, "cancel", lambda session_id: (has_begun.wait(LATE_S), cancel(session_id)))
        first = await generator.start(prompt_of(generator, QUESTION), short)
        async for _ in first:
            break
        first.close()  # the engine has made all of this answer before it is told
        await first.task
        second = await generator.start(prompt_of(generator, QUESTION), long)
        async for _ in second:
            has_begun.set()
        assert second.place.session_id == first.place.session_id and len(second.token_ids) == LONG

    asyncio.run(leave())
