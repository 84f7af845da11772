"""A worker begins with sessions that hold the template's words, so that the first prompts need not compute them."""

import asyncio
from types import SimpleNamespace

import pytest
from lmdeploy.messages import EngineOutput, ResponseType
from lmdeploy.model import MODELS
from lmdeploy.tokenizer import Tokenizer

from lingbi.api_errors import EngineFault
from lingbi.engine.generation import Generator
from lingbi.engine.prompt_forms import lmdeploy_form, published_form
from lingbi.engine.prompts import assemble, encode
from lingbi.heartbeat import Pulse, Vitals
from lingbi.model import catalogue
from lingbi.vision.cache import FeatureCache
from tests.conftest import DEMO

LMDEPLOY, PUBLISHED = lmdeploy_form(MODELS.get("internlm-xcomposer2")()), published_form(catalogue.INSTRUCTION)
KEPT = 5
A_TOKEN = 7


class Instance:
    """An engine's instance that says one token, and remembers what it was asked."""

    def __init__(self, fails: bool = False):
        self.fails, self.asked, self.running = fails, [], 0

    async def async_stream_infer(self, session_id, input_ids, **others):
        assert not self.running
        self.running += 1
        self.asked.append((session_id, others["step"], others["sequence_end"]))
        await asyncio.sleep(0)
        if self.fails:
            raise RuntimeError("the engine is broken")
        yield EngineOutput(ResponseType.FINISH, [A_TOKEN], 1)
        self.running -= 1


def generator_of(instances: list, kept: int, form=LMDEPLOY) -> Generator:
    engine = SimpleNamespace(
        gens_set=instances,
        session_len=4096,
        tokenizer=Tokenizer(str(DEMO)),
        prompt_form=form,
        vl_encoder=SimpleNamespace(pulse=Pulse(), cache=FeatureCache(0)),
    )
    return Generator(engine, len(instances), Vitals(), kept)


def primed(kept: int, form=LMDEPLOY):
    async def prime():
        generator = generator_of([instance], kept, form)
        await generator.prime()
        text = form.write([dict(role="user", content="请描述图中内容")])
        return generator.sessions, assemble(encode(text, generator.tokenizer, form.starts_after_images), [])

    instance = Instance()
    return instance, *asyncio.run(prime())


@pytest.mark.parametrize("form", [LMDEPLOY, PUBLISHED], ids=lambda form: form.name)
def test_every_kept_session_holds_the_templates_words(form):
    instance, sessions, prompt = primed(KEPT, form)
    assert instance.asked == [(number, 0, False) for number in range(1, KEPT + 1)]
    assert len(sessions) == KEPT
    places = []
    for _ in range(KEPT):
        places.append(sessions.take(prompt, may_go_on=True))
        sessions.keep(places[-1], prompt, is_whole=True, tokens=len(prompt.ids))
    assert [place.session_id for place in places] == list(range(1, KEPT + 1))
    # all of the system's message; the demo's tokeniser cuts it about as the published one does
    assert {place.step for place in places} == {places[0].step} and places[0].step > catalogue.TEMPLATE_TOKENS // 2


def test_without_kept_sessions_nothing_is_asked():
    instance, sessions, _ = primed(0)
    assert instance.asked == [] and len(sessions) == 0


def test_an_engine_that_fails_ends_the_start():
    async def prime():
        await generator_of([Instance(fails=True)], KEPT).prime()

    with pytest.raises(EngineFault):
        asyncio.run(prime())


def test_the_instance_that_answered_last_answers_next():
    instances = [Instance() for _ in range(3)]
    asyncio.run(generator_of(instances, KEPT).prime())
    assert sorted(len(instance.asked) for instance in instances) == [0, 0, KEPT]
