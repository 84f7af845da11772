"""The CPU's decoder computes what the published code computes, whatever that makes of positions, masks and caches."""

import asyncio
import copy

import pytest
import torch
from lmdeploy.messages import EngineGenerationConfig
from transformers import AutoConfig, AutoModelForCausalLM

from lingbi.engine.cpu.agreement import BY_LENGTH, BY_POSITION, check_agreement, conventions
from lingbi.engine.cpu.cache import GROWTH_TOKENS, KvCache
from lingbi.engine.cpu.checkpoint import load_checkpoint
from lingbi.engine.cpu.decoder import Decoder
from lingbi.engine.cpu.scheduler import CpuEngine, embed
from lingbi.engine.progress import PromptProgress
from lingbi.errors import StartError
from tests.conftest import DEMO
from tests.stand_ins import as_published_4khd, as_published_vl, edit, of_another_model

IDS = list(range(5, 405))
IMAGES = [(40, 76), (76, 112), (200, 236)]
STAND_INS = {"vl": as_published_vl, "4khd": as_published_4khd}
TURNS = (300, 350, 400)  # tokens of a conversation at the end of each turn


@pytest.fixture(scope="module", params=STAND_INS)
def folder(request, tmp_path_factory):
    return STAND_INS[request.param](tmp_path_factory.mktemp("model") / request.param)


@pytest.fixture(scope="module")
def model(folder):
    return load_checkpoint(str(folder))


def prompt_of(model):
    """Embeddings and mask of IDS with three images in them, two of which lie side by side."""
    torch.manual_seed(0)
    features = [torch.randn(end - begin, model.config.hidden_size) for begin, end in IMAGES]
    return embed(model, IDS, features, IMAGES)


def whole(model, prompt, mask) -> torch.Tensor:
    """Logits of the folder's own code, the whole prompt at once."""
    ones = torch.ones(1, len(prompt), dtype=torch.long)
    return model(inputs_embeds=prompt[None], im_mask=mask[None], attention_mask=ones).logits[0, -1]


@pytest.mark.parametrize("chunk", [1, 7, 32, 256, 16384])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chunks_on_a_cache_give_the_logits_of_the_whole_prompt(model, chunk, dtype):
    with torch.inference_mode():
        model = copy.deepcopy(model).to(dtype)
        decoder, (prompt, mask) = Decoder(model, is_tiled=False), prompt_of(model)
        if chunk == 1:
            prompt, mask = prompt[:80], mask[:80]
        cache = decoder.new_cache()
        for begin in range(0, len(prompt), chunk):
            found = decoder(prompt[begin : begin + chunk], mask[begin : begin + chunk], cache)
        expected = whole(model, prompt, mask)
    assert cache.tokens == len(prompt)
    if dtype is torch.float32:
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    else:
        assert torch.cosine_similarity(found.float(), expected.float(), dim=0) > 0.999


def test_without_an_image_nothing_is_added_to_any_token(model):
    with torch.inference_mode():
        prompt, mask = embed(model, IDS)
        decoder = Decoder(model, is_tiled=False)
        torch.testing.assert_close(
            decoder(prompt, mask, decoder.new_cache()), whole(model, prompt, mask), rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("prefill_tokens", [32, 256, 16384])
@pytest.mark.parametrize("keeps", [False, True])
def test_turns_of_a_conversation_give_the_tokens_of_whole_prompts(folder, model, prefill_tokens, keeps):
    """Of the folder's own code: each turn as one prompt from nothing, greedily."""
    engine = CpuEngine(str(folder), stop_words=[], threads=2, sequences=2, prefill_tokens=prefill_tokens)
    with torch.inference_mode():
        prompt, _ = prompt_of(model)
    held, config = 0, EngineGenerationConfig(top_k=1, max_new_tokens=4, ignore_eos=True)
    for end in TURNS:
        ranges = [(begin - held, stop - held) for begin, stop in IMAGES if held <= begin and stop <= end]
        features = [prompt[begin + held : stop + held] for begin, stop in ranges]
        options = {"input_embeddings": features, "input_embedding_ranges": ranges, "gen_config": config}
        options |= {"sequence_start": not held, "step": held, "sequence_end": not keeps}
        outputs = asyncio.run(collect(engine, IDS[held:end], **options))
        assert outputs[-1].token_ids == greedy(model, end)
        held = end if keeps else 0
        if not keeps:
            assert not engine.sessions


async def collect(engine, ids, **options) -> list:
    return [output async for output in engine.create_instance().async_stream_infer(1, ids, **options)]


def greedy(model, end: int, tokens: int = 4) -> list:
    """The greedy answer of the folder's own code to the first tokens of the prompt."""
    with torch.inference_mode():
        prompt, mask = prompt_of(model)
        prompt, mask, answer = prompt[:end], mask[:end], []
        for _ in range(tokens):
            logits = whole(model, prompt, mask)
            logits[model.config.eos_token_id] = float("-inf")
            answer.append(int(logits.argmax()))
            prompt = torch.cat((prompt, model.model.tok_embeddings(torch.tensor(answer[-1:]))))
            mask = torch.cat((mask, torch.zeros(1, dtype=torch.bool)))
    return answer


def test_a_prompt_tells_how_far_it_is(folder):
    engine = CpuEngine(str(folder), stop_words=[], threads=2, sequences=2, prefill_tokens=32)
    config = EngineGenerationConfig(top_k=1, max_new_tokens=2, ignore_eos=True)
    outputs = asyncio.run(collect(engine, IDS[:100], gen_config=config, sequence_end=True, with_progress=True))
    assert outputs[:3] == [PromptProgress(done, 100) for done in (32, 64, 96)]
    assert [len(output.token_ids) for output in outputs[3:]] == [1, 2]


def test_the_conventions_of_a_folders_code_are_told(tmp_path):
    found = {}
    for name, make in STAND_INS.items():
        model = load_checkpoint(str(make(tmp_path / name)))
        with torch.inference_mode():
            found[name] = conventions(model, Decoder(model, is_tiled=False), name)
    assert (found["vl"].rotation, found["4khd"].rotation) == (BY_LENGTH, BY_POSITION)
    assert min(item.cosine for item in found.values()) > 0.9999


def test_code_that_computes_another_model_stops_a_start(tmp_path):
    folder = str(of_another_model(tmp_path / "other"))
    with pytest.raises(StartError, match=rf"the code in {folder} computes another model .* a cosine of -?0\.\d+"):
        CpuEngine(folder, stop_words=[], threads=2, sequences=1, prefill_tokens=32)


def test_code_that_cannot_compute_a_prompt_stops_a_start(tmp_path):
    folder = as_published_vl(tmp_path / "broken")
    edit(
        folder / "modeling_internlm2.py",
        "        batch, tokens, _ = inputs_embeds.shape\n",
        "        batch, tokens = 1\n",
    )
    with pytest.raises(StartError, match="cannot compute a prompt of 24 tokens on the CPU .TypeError: "):
        CpuEngine(str(folder), stop_words=[], threads=2, sequences=1, prefill_tokens=32)


@pytest.mark.parametrize("is_tiled", [False, True])
def test_the_scale_of_plora_is_the_models(is_tiled):
    """4khd doubles what PLoRA adds to wqkv, with matrices of rank 8."""
    config = AutoConfig.from_pretrained(str(DEMO), trust_remote_code=True)
    config.max_length, config.tie_plora = 16384 if is_tiled else 4096, False
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config, trust_remote_code=True).eval()
    with torch.inference_mode():
        for name, parameter in model.named_parameters():
            if "Plora" in name:
                parameter.normal_(std=0.1)
        check_agreement(model, Decoder(model, is_tiled), "here")
        with pytest.raises(StartError, match="computes another model"):
            check_agreement(model, Decoder(model, not is_tiled), "here")


def test_a_cache_grows_by_steps_and_forgets_what_is_cut():
    cache, rooms = KvCache(2, 1, 4, torch.float32), set()
    for number in range(3 * GROWTH_TOKENS):
        for layer in range(2):
            new = torch.full((1, 1, 4), float(number))
            keys, values = cache.append(layer, new, -new)
            assert keys.shape == values.shape == (1, number + 1, 4)
        cache.advance(1)
        rooms.add(cache.room)
    assert len(rooms) == 3 and keys[0, :, 0].tolist() == list(range(3 * GROWTH_TOKENS))
    assert cache.nbytes == 2 * 2 * 4 * 4 * cache.room
    cache.cut(10)
    keys, _ = cache.append(0, torch.full((1, 1, 4), 7.0), torch.zeros(1, 1, 4))
    assert keys[0, :, 0].tolist() == [*range(10), 7]
