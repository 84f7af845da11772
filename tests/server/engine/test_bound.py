"""Bound answers are the masked decoder's: the same greedy tokens, the same distribution, and sessions stay usable."""

import asyncio
import json
import math
import threading
from collections import Counter
from functools import partial

import numpy as np
import pytest

from lingbi.api_errors import BadRequest, EngineFault
from lingbi.engine.bound import FIRST_AHEAD, TOGETHER_S, BoundAnswer, Tally
from lingbi.engine.grammar.choice import MOST
from lingbi.engine.grammar.forms import Form
from lingbi.engine.grammar.matcher import Matcher
from lingbi.http.protocol.requests import ChatRequest
from lingbi.http.sampling_options import engine_options
from tests.conftest import DEMO
from tests.geometries import PUBLISHED
from tests.schemas import CHOICES, REGEXES, SCHEMAS, closed, regex_fault, schema_fault
from tests.server.engine.masked import MaskedDecoder, cpu_engine, generator_of, prompt_of, random_demo

LIMIT, LONG, WIDE = 160, 400, 12  # tokens
QUESTION = "Describe the picture as JSON."
FORMS = (
    {name: Form("schema", schema, "schema") for name, schema in SCHEMAS.items()}
    | {name: Form("regex", pattern, "regex") for name, pattern in REGEXES.items()}
    | {"choice": Form("choice", CHOICES, "choice")}
)
SAMPLES = 400
LEAST_P = 0.001
ENDS_S = 20
LATE_S = 0.2


@pytest.fixture(scope="module")
def demo_engine():
    return cpu_engine(DEMO)


@pytest.fixture
def demo(demo_engine):
    """The demo model, without sessions of the test before."""
    demo_engine.sessions.clear()
    return demo_engine


@pytest.fixture(scope="module")
def randomly(tmp_path_factory):
    return cpu_engine(random_demo(tmp_path_factory.mktemp("weights")))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Random weights with the published tokenizer, of whose tokens the candidates are a ninetieth."""
    if not PUBLISHED.exists():
        pytest.skip("the published tokenizer is not beside this repository")
    return cpu_engine(random_demo(tmp_path_factory.mktemp("published"), PUBLISHED / "tokenizer.model"))


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


async def ask_text(generator, form, **options) -> str:
    return (await ask(generator, form, **options))[1]


async def unbound(generator) -> str:
    asked = ChatRequest.model_validate({"model": "", "messages": QUESTION, "temperature": 0})
    answer = await generator.start(
        prompt_of(generator, QUESTION), engine_options(asked, 40, generator.engine.stop_words, None)
    )
    return "".join([step.text async for step in answer])


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


def test_a_stop_word_ends_a_bound_answer_too(demo):
    answer, text = asyncio.run(_stopped(demo))
    assert text == '{"name": "' and answer.finish_reason == "stop"


async def _stopped(engine):
    generator = generator_of(engine, kept=2)
    _, whole = await ask(generator, FORMS["flat object"])
    word = json.loads(whole)["name"]
    return await ask(generator, FORMS["flat object"], stop=[word])


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


def test_beside_free_answers_bound_ones_ask_for_the_most_candidates_together(published):
    async def beside(is_beside_a_free_one):
        return await wide_moments(generator_of(published, kept=2), is_beside_a_free_one)

    alone, together = asyncio.run(beside(False)), asyncio.run(beside(True))
    assert max(moment % TOGETHER_S for moment in together) < TOGETHER_S / 2, together
    assert len({moment // TOGETHER_S for moment in together}) > 1, together
    assert alone[-1] - alone[0] < together[-1] - together[0], (alone, together)


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
