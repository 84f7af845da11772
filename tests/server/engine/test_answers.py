"""In the background a prompt is computed in parts while somebody asks, and stands aside for who waits for a first token."""

import asyncio
from functools import partial

import pytest
import torch
from lmdeploy.messages import EngineGenerationConfig

from lingbi.engine.background import Rules
from lingbi.engine.bound import BoundAnswer
from lingbi.engine.prompts import assemble, encode
from lingbi.turns import NOBODY
from tests.server.engine.bound_answers import ENDS_S, FORMS
from tests.server.engine.masked import generator_of

PART, PICTURE_TOKENS, ANSWER = 40, 100, 12
SOMEBODY = "a request"
HIDDEN = 256


def asked_for_a_picture(generator):
    """A prompt with random features in place of a picture, so that most parts end inside it."""
    text = generator.form.write([dict(role="user", content="\ufdd0What is this?")])
    features = torch.randn(PICTURE_TOKENS, HIDDEN, generator=torch.Generator().manual_seed(0))
    return assemble(encode(text, generator.tokenizer, generator.form.starts_after_images), [features])


def listened(generator) -> list[tuple[int, int]]:
    """The (first, last) tokens of each prompt that the engine is given from now on."""
    asked = []
    for instance in generator.places.free:
        infer = instance.async_stream_infer

        def heard(session_id, input_ids, infer=infer, **options):
            asked.append((options["step"], options["step"] + len(input_ids)))
            return infer(session_id, input_ids, **options)

        instance.async_stream_infer = heard
    return asked


def generator_beside_somebody(engine, kept: int, part: int = PART):
    generator = generator_of(engine, kept)
    generator.places.background.rules = Rules(part=part)
    generator.places.background.arrive(SOMEBODY)
    generator.places.background.answer(SOMEBODY)
    return generator


async def text_of(generator, asker, form=None) -> str:
    config = EngineGenerationConfig(max_new_tokens=ANSWER, ignore_eos=form is None, top_k=1)
    kind = partial(BoundAnswer, matcher=await generator.grammars.matcher(FORMS[form])) if form else None
    answer = await generator.start(asked_for_a_picture(generator), config, asker=asker, kind=kind)
    text = "".join([step.text async for step in answer])
    answer.close()
    await answer.task
    return text


@pytest.mark.parametrize("kept", [0, 2])
@pytest.mark.parametrize("form", [None, "flat object"])
def test_parts_give_the_same_answer(demo, kept, form):
    async def both():
        whole = await text_of(generator_of(demo, kept), NOBODY, form)
        demo.sessions.clear()
        generator = generator_beside_somebody(demo, kept)
        asked, tokens = listened(generator), len(asked_for_a_picture(generator).ids)
        assert await text_of(generator, NOBODY.in_background, form) == whole
        begins = range(0, tokens, PART)
        assert [begin for begin, _ in asked[: len(begins)]] == list(begins)
        assert len(generator.sessions) == kept // 2

    asyncio.run(both())
    assert kept or not demo.sessions


def test_nobody_to_stand_aside_for_and_who_is_no_background_have_the_prompt_computed_at_once(demo):
    async def asked_by(generator, asker):
        asked = listened(generator)
        await text_of(generator, asker)
        return asked

    alone = asyncio.run(asked_by(generator_of(demo, 2), NOBODY.in_background))
    person = asyncio.run(asked_by(generator_beside_somebody(demo, 2), NOBODY))
    assert len(alone) == len(person) == 1


def test_parts_wait_while_somebody_waits_for_a_first_token_and_the_wait_is_no_time_of_the_prompt(demo):
    async def stand_aside():
        generator = generator_beside_somebody(demo, 2)
        background, asked = generator.places.background, listened(generator)
        line = asyncio.create_task(text_of(generator, NOBODY.in_background))
        while not asked:
            await asyncio.sleep(0)
        background.arrive("another")
        since = dict(background.beginning)
        await asyncio.sleep(0.5)
        assert len(asked) == 1 and not line.done()
        background.answer("another")
        while len(asked) < 2:
            await asyncio.sleep(0)
        assert all(background.beginning[answer] - began > 0.3 for answer, began in since.items())
        assert await asyncio.wait_for(line, ENDS_S)

    asyncio.run(stand_aside())


@pytest.mark.parametrize("kept", [0, 2])
def test_who_leaves_between_two_parts_leaves_nothing_behind(demo, kept):
    async def leave():
        generator = generator_beside_somebody(demo, kept)
        asked = listened(generator)
        config = EngineGenerationConfig(max_new_tokens=ANSWER, ignore_eos=True, top_k=1)
        answer = await generator.start(asked_for_a_picture(generator), config, asker=NOBODY.in_background)
        generator.places.background.arrive("another")
        while not asked or demo.active or demo.waiting:
            await asyncio.sleep(0.01)
        answer.close()
        await asyncio.wait_for(answer.task, ENDS_S)
        assert len(generator.places.free) == 4 and not generator.runs and answer.progress.error is None
        assert asked[0] == (0, PART) and len(asked) == (1 if kept else 2)
        return await text_of(generator, NOBODY), await text_of(generator_of(demo, 0), NOBODY)

    after, plain = asyncio.run(leave())
    assert after == plain
    assert kept or not demo.sessions
