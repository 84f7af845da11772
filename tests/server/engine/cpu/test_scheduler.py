"""The CPU engine gives the remote code's own greedy answer, and serves requests in fair turns."""

import asyncio

import pytest
import torch
from lmdeploy.messages import EngineGenerationConfig, ResponseType

from lingbi.engine.cpu import scheduler as cpu
from lingbi.engine.cpu.checkpoint import load_checkpoint
from lingbi.engine.cpu.scheduler import CpuEngine, embed
from lingbi.turns import Asker
from tests.conftest import DEMO

PROMPT = list(range(5, 95))
STOP = "[UNUSED_TOKEN_145]"


@pytest.fixture(scope="module")
def engine():
    return CpuEngine(str(DEMO), stop_words=[STOP], threads=2, sequences=4, prefill_tokens=32)


def greedy(tokens=12, **changes) -> EngineGenerationConfig:
    return EngineGenerationConfig(**({"top_k": 1, "max_new_tokens": tokens, "ignore_eos": True} | changes))


async def collect(engine, session_id, config=None, prompt=PROMPT, **options):
    outputs = []
    stream = engine.create_instance().async_stream_infer(
        session_id, prompt, gen_config=config or greedy(), sequence_end=True, **options
    )
    async for output in stream:
        outputs.append(output)
    return outputs


def reference(tokens: int, prompt=PROMPT) -> list:
    """The model's own greedy continuation, the whole prompt at once."""
    model = load_checkpoint(str(DEMO))
    ids = list(prompt)
    for _ in range(tokens):
        embeddings, mask = embed(model, ids)
        with torch.inference_mode():
            output = model(inputs_embeds=embeddings[None], im_mask=mask[None], attention_mask=torch.ones(1, len(ids)))
            logits = output.logits[0, -1]
            logits[2] = float("-inf")  # end of sequence, banned by ignore_eos
        ids.append(int(logits.argmax()))
    return ids[len(prompt) :]


def test_prefill_in_chunks_and_one_token_a_turn_give_the_reference_answer(engine):
    outputs = asyncio.run(collect(engine, 1))
    assert outputs[-1].token_ids == reference(12)
    assert [len(output.token_ids) for output in outputs] == [*range(1, 12), 12]
    assert outputs[-1].status is ResponseType.FINISH


def test_concurrent_answers_are_the_answers_one_after_the_other(engine):
    prompts = [PROMPT[i:] for i in range(6)]

    async def together():
        return await asyncio.gather(*[collect(engine, 10 + i, prompt=prompt) for i, prompt in enumerate(prompts)])

    alone = [asyncio.run(collect(engine, 20 + i, prompt=prompt))[-1].token_ids for i, prompt in enumerate(prompts)]
    assert [outputs[-1].token_ids for outputs in asyncio.run(together())] == alone


def test_a_long_answer_does_not_hold_up_a_short_one(engine):
    order = []

    async def ask(session_id, tokens):
        await collect(engine, session_id, greedy(tokens))
        order.append(tokens)

    async def together():
        await asyncio.gather(ask(30, 300), ask(31, 3))

    asyncio.run(together())
    assert order == [3, 300]


def test_one_answer_gets_as_many_turns_as_all_those_of_another_key_together(engine):
    """Three long answers of one key, and a short one of another: while that is made, the three together say about as much."""
    said = dict.fromkeys(range(70, 73), 0)
    counted = {}

    async def flood(session_id):
        stream = engine.create_instance().async_stream_infer(
            session_id, PROMPT, gen_config=greedy(300), asker=Asker("a")
        )
        async for output in stream:
            said[session_id] = len(output.token_ids)

    async def ask():
        while not all(said.values()):
            await asyncio.sleep(0.001)
        before = sum(said.values())
        tokens = len((await collect(engine, 73, greedy(80), asker=Asker("b")))[-1].token_ids)
        counted["b"], counted["a"] = tokens, sum(said.values()) - before
        for session_id in said:
            engine.end(session_id)

    async def together():
        await asyncio.gather(*map(flood, said), ask())

    asyncio.run(together())
    assert (
        counted["a"] < 2 * counted["b"]
    ), counted  # as many, and some while one of the sides is begun or counted; not three times


def test_image_features_replace_embeddings_in_their_range(engine):
    features = torch.full((4, engine.model.config.hidden_size), 0.5)
    embeddings, mask = embed(engine.model, PROMPT[:10], [features.numpy()], [(3, 7)])
    assert mask.tolist() == [3 <= i < 7 for i in range(10)]
    assert (embeddings[3:7] == 0.5).all() and not (embeddings[7] == 0.5).any()


def test_cancel_ends_an_answer_and_frees_its_place(engine):
    async def cancelled():
        stream = engine.create_instance().async_stream_infer(40, PROMPT, gen_config=greedy(3000), sequence_end=True)
        async for output in stream:
            if len(output.token_ids) == 2:
                engine.cancel(40)
        return output

    output = asyncio.run(cancelled())
    assert output.status is ResponseType.FINISH and len(output.token_ids) < 100
    assert not engine.active and not engine.waiting


def test_a_failing_request_fails_alone(engine, monkeypatch):
    def broken(*_):
        raise RuntimeError("out of luck")

    with monkeypatch.context() as patch:
        patch.setattr(cpu, "next_token", broken)
        with pytest.raises(RuntimeError, match="out of luck"):
            asyncio.run(collect(engine, 50))
    assert asyncio.run(collect(engine, 51))[-1].token_ids == reference(12)


def test_a_session_goes_on_where_it_stopped(engine):
    """lmdeploy's own web page keeps a session's cache and sends only the next turn."""
    instance = engine.create_instance()
    first = list(instance.stream_infer(60, PROMPT, gen_config=greedy(1)))[-1].token_ids
    rest = list(instance.stream_infer(60, first, gen_config=greedy(5), sequence_start=False))[-1].token_ids
    assert first + rest == reference(6)
    engine.end(60)
    assert 60 not in engine.sessions


@pytest.mark.parametrize("images", [0, 1])
def test_a_session_goes_on_after_the_last_token_of_its_answer(engine, images):
    """Which is in no cache yet; a session that goes on after more than it has fails."""
    instance, rest = engine.create_instance(), PROMPT[:20]
    features = [torch.full((4, engine.model.config.hidden_size), 0.5)] * images
    said = list(instance.stream_infer(63, PROMPT[:40], gen_config=greedy(3)))[-1].token_ids
    options = {"input_embeddings": features, "input_embedding_ranges": [(4, 8)] * images}
    options |= {"gen_config": greedy(8), "sequence_start": False, "step": 43}
    after = list(instance.stream_infer(63, rest, **options))[-1].token_ids
    options |= {"input_embedding_ranges": [(47, 51)] * images, "sequence_start": True, "step": 0}
    assert list(instance.stream_infer(64, PROMPT[:40] + said + rest, **options))[-1].token_ids == after
    with pytest.raises(ValueError, match="cannot go on after 72 tokens"):
        list(instance.stream_infer(63, rest, gen_config=greedy(1), sequence_start=False, step=72))


@pytest.mark.parametrize("step", [85, 80])
def test_a_session_that_goes_on_is_sampled_by_all_that_it_holds(engine, step):
    """As TurboMind does: a penalty knows what was said in the turns before, and not what was stepped back over."""
    penalised = greedy(12, repetition_penalty=0.01)
    whole = asyncio.run(collect(engine, 61, penalised))[-1].token_ids
    assert whole != reference(12)
    instance = engine.create_instance()
    list(instance.stream_infer(62, PROMPT[:85], gen_config=greedy(1)))
    rest = PROMPT[step:]
    options = {"gen_config": penalised, "sequence_start": False, "sequence_end": True, "step": step}
    assert list(instance.stream_infer(62, rest, **options))[-1].token_ids == whole
