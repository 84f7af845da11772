"""Bound answers are the masked decoder's: the same greedy tokens, and the same distribution."""

import asyncio
import math
from collections import Counter
from functools import partial

import pytest

from lingbi.engine import moments
from lingbi.engine.bound import BoundAnswer, Tally
from lingbi.engine.grammar.choice import MOST
from lingbi.engine.grammar.forms import Form
from lingbi.http.protocol.requests import ChatRequest
from lingbi.http.sampling_options import engine_options
from tests.schemas import closed
from tests.server.engine.bound_answers import ENDS_S, FORMS, LONG, QUESTION, ask, fault
from tests.server.engine.masked import MaskedDecoder, generator_of, prompt_of

WIDE = 12  # tokens
APART_S = 0.5
SAMPLES = 400
LEAST_P = 0.001


@pytest.mark.parametrize("engine", ["demo", "randomly", "published"])
def test_greedy_tokens_are_those_of_a_masked_decoder(engine, request):
    engine = request.getfixturevalue(engine)

    async def compare():
        generator, found = generator_of(engine, kept=2), Tally()
        for name, form in FORMS.items():
            answer, text = await ask(generator, form, LONG)
            reference = MaskedDecoder(engine, answer.prompt, await generator.grammars.matcher(form))
            assert answer.token_ids == reference.greedy(LONG), name
            assert reference.unlisted == answer.tally.unlisted, name
            assert answer.finish_reason == "stop" and fault(form, text) is None, (name, text)
            for kind in vars(found):
                setattr(found, kind, getattr(found, kind) + getattr(answer.tally, kind))
        return found

    found = asyncio.run(compare())
    assert found.forced and found.chosen and found.taken_back, found  # else nothing was bound


def exact(engine, prompt, matcher, options) -> dict[str, float]:
    """The probability of every answer by a masked decoder that filters first."""
    found: Counter[str] = Counter()
    left = [([], 1.0)]
    while left:
        ids, mass = left.pop()
        decoder = MaskedDecoder(engine, prompt, matcher.copy())
        for token in ids:
            assert decoder.matcher.take(token)
        if ids:
            decoder.feed(ids)
        forced = decoder.matcher.take_forced()
        if forced:
            left.append((ids + forced, mass))
            continue
        if decoder.matcher.must_end:
            found[decoder.vocabulary.text(ids).decode()] += mass
            continue
        weights = (decoder.logits / options["temperature"]).softmax(0)
        if options["top_k"] > 0:
            weights[weights.argsort(descending=True)[options["top_k"] :]] = 0
        allowed = weights * decoder.allowed()
        if not allowed.any():
            allowed = (decoder.logits / options["temperature"]).softmax(0) * decoder.allowed()
        for token in allowed.nonzero().flatten().tolist():
            share = mass * float(allowed[token] / allowed.sum())
            if token in decoder.vocabulary.stop_ids:
                found[decoder.vocabulary.text(ids).decode()] += share
            elif share > 1e-4:
                left.append(([*ids, token], share))
    return found


def chi_square_p(observed: Counter, expected: dict[str, float], samples: int) -> float:
    """The probability of at least this difference by chance; rare answers count together (Wilson and Hilferty's formula)."""
    common = {text: mass * samples for text, mass in expected.items() if mass * samples >= 5}
    pairs = [(observed[text], count) for text, count in common.items()]
    rest = samples - sum(common.values())
    if rest > 1:
        pairs.append((samples - sum(seen for seen, _ in pairs), rest))
    value, degrees = sum((seen - count) ** 2 / count for seen, count in pairs), len(pairs) - 1
    assert degrees > 0, pairs
    normal = ((value / degrees) ** (1 / 3) - (1 - 2 / (9 * degrees))) / math.sqrt(2 / (9 * degrees))
    return math.erfc(normal / math.sqrt(2)) / 2


@pytest.mark.parametrize(
    "options",
    [{"temperature": 1.0, "top_k": 0}, {"temperature": 1.8, "top_k": 5}],
    ids=lambda options: str(options["top_k"]),
)
def test_samples_have_the_masked_decoders_distribution(demo, options):
    form = Form("regex", "(red|blue|green|A|The) (circle|square|star)?", "regex")

    async def sample():
        generator = generator_of(demo, kept=2)
        expected = exact(demo, prompt_of(generator, QUESTION), await generator.grammars.matcher(form), options)
        asked = [await ask(generator, form, seed=number, **options) for number in range(SAMPLES)]
        return Counter(text for _, text in asked), expected

    observed, expected = asyncio.run(sample())
    assert set(observed) <= set(expected) and len(observed) > 2
    assert chi_square_p(observed, expected, SAMPLES) > LEAST_P, (observed, expected)


def test_the_same_seed_gives_the_same_answer_and_others_differ(demo):
    async def texts(seeds):
        generator = generator_of(demo, kept=2)
        return [(await ask(generator, FORMS["scene"], temperature=1.5, seed=seed))[1] for seed in seeds]

    first, again, *others = asyncio.run(texts([7, 7, 8, 9, 10]))
    assert first == again and len({first, *others}) > 1


def test_an_answer_that_the_limit_cuts_says_so_and_is_no_longer(demo):
    async def cut():
        generator = generator_of(demo, kept=2)
        whole, text = await ask(generator, FORMS["flat object"])
        for limit in range(1, len(whole.token_ids)):
            answer, part = await ask(generator, FORMS["flat object"], limit)
            assert (len(answer.token_ids), answer.finish_reason) == (limit, "length"), limit
            assert text.startswith(part)
        answer, part = await ask(generator, FORMS["flat object"], len(whole.token_ids))
        assert (answer.finish_reason, part) == ("stop", text)

    asyncio.run(cut())


SPECIAL = ("<s>", "</s>", "<unk>", "[UNUSED_TOKEN_145]")
SPECIAL_FORMS = (
    [Form("choice", [text], "choice") for text in SPECIAL]
    + [Form("choice", [f"a {text} b", f"a {text} c"], "choice") for text in SPECIAL]
    + [Form("schema", {"const": text}, "schema") for text in SPECIAL]
    + [Form("schema", closed(**{text: {"enum": [1, 2]}}), "schema") for text in SPECIAL]
)


@pytest.mark.parametrize("engine", ["demo", "published"])
def test_text_that_looks_like_a_special_token_ends_and_is_text(engine, request):
    async def compare(engine):
        generator = generator_of(engine, kept=2)
        for form in SPECIAL_FORMS:
            answer, text = await asyncio.wait_for(ask(generator, form, 40), ENDS_S)
            assert answer.finish_reason == "stop" and fault(form, text) is None, (form, text)
            vocabulary = answer.matcher.vocabulary
            assert not set(answer.token_ids) & set(vocabulary.special_token_ids), form
            assert vocabulary.text(answer.token_ids).decode() == text

    asyncio.run(compare(request.getfixturevalue(engine)))


def test_a_form_without_a_choice_asks_the_engine_nothing(demo):
    answer, text = asyncio.run(_constant(demo))
    assert text == '{"version": 2, "名": "常量"}' and answer.tally.forced == len(answer.token_ids)


async def _constant(engine):
    return await ask(generator_of(engine, kept=2), FORMS["const"])


class Wide(BoundAnswer):
    """Keeps the moments at which the engine is asked for the most candidates."""

    moments: list[float]

    async def _candidates(self, prompt):
        if self._width == MOST:
            self.moments.append(asyncio.get_running_loop().time())
        return await super()._candidates(prompt)


async def wide_moments(generator, is_beside_a_free_one: bool) -> list[float]:
    """The times at which two bound answers asked for the most candidates."""
    asked = ChatRequest.model_validate({"model": "", "messages": QUESTION, "temperature": 0, "ignore_eos": True})
    short, long = (engine_options(asked, limit, generator.engine.stop_words, None) for limit in (WIDE, LONG * 4))
    prompt, Wide.moments = prompt_of(generator, QUESTION), []
    matcher = await generator.grammars.matcher(FORMS["scene"])
    free = [await generator.start(prompt, long)] if is_beside_a_free_one else []
    bound = [await generator.start(prompt, short, kind=partial(Wide, matcher=matcher.copy())) for _ in range(2)]
    await asyncio.gather(*(answer.task for answer in bound))
    for answer in [*bound, *free]:
        answer.close()
        assert not free or answer in bound or not answer.task.done(), "the free answer ended before the bound ones"
    await asyncio.gather(*(answer.task for answer in free))
    return Wide.moments


def test_beside_free_answers_bound_ones_ask_for_the_most_candidates_together(published, monkeypatch):
    monkeypatch.setattr(moments, "STEP_S", APART_S * moments.SHARE)
    monkeypatch.setattr(moments, "QUESTION_S", 0)

    async def beside(is_beside_a_free_one):
        return await wide_moments(generator_of(published, kept=2), is_beside_a_free_one)

    alone, together = asyncio.run(beside(False)), asyncio.run(beside(True))
    assert max(moment % APART_S for moment in together) < APART_S / 2, together
    assert len({moment // APART_S for moment in together}) > 1, together
    assert alone[-1] - alone[0] < together[-1] - together[0], (alone, together)
