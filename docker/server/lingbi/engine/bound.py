"""Answers that are bound to a form, from engines that know no grammar.

The engine runs ahead as usual, some tokens at a time, and a grammar judges each of them. At the first token that it does
not allow, the session is stepped back to the token before, the engine is asked for that one token with its likeliest
candidates, and one of those that are allowed is put into the session as if it had been part of the prompt. A greedy answer
that runs ahead a short way has the candidates of each token with it, so that there is nothing to ask. Text that the grammar
forces is put in without asking. Both engines can step back in a session that they keep (sessions.py).
"""

import asyncio
import codecs
import logging
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from lmdeploy.messages import EngineGenerationConfig
from lmdeploy.tokenizer import DetokenizeState

from lingbi.engine.answers import Answer
from lingbi.engine.grammar.choice import FEW, GREEDY, MOST, Candidates, Sampler
from lingbi.engine.grammar.matcher import Matcher
from lingbi.engine.grammar.vocabulary import Allowed
from lingbi.engine.moments import until_next
from lingbi.engine.progress import PromptProgress
from lingbi.engine.prompts import Prompt

log = logging.getLogger(__name__)
FIRST_AHEAD, MOST_AHEAD = 4, 64  # tokens that the engine runs ahead: twice as many each time while all are allowed
WITH_CANDIDATES = 8  # tokens ahead, at most, for which a greedy answer has candidates: these cost little, not nothing
# Where the engine draws the likeliest token although it gives the candidates of a higher top-k. Their probabilities
# underflow at this temperature, and their order stays.
COLD = 0.01
SEED_BITS = 64
Outputs = AsyncGenerator[Any, None]
Logprobs = list[dict[int, float]] | None  # of each token's candidates, the likeliest first


@dataclass
class Tally:
    """What binding an answer took, in tokens.

    forced: put in without asking; chosen: among candidates; unlisted: of those, chosen where no candidate was allowed;
    taken_back: made by the engine and dropped; outside: probability beyond the candidates, summed over those chosen for
    which the engine was asked at temperature 1.
    """

    forced: int = 0
    chosen: int = 0
    taken_back: int = 0
    unlisted: int = 0
    outside: float = 0.0


@dataclass
class Accepted:
    """The tokens of an answer so far, in the place of an engine's output."""

    token_ids: list[int]
    logprobs: None = None


class BoundAnswer(Answer):
    """An answer in the form that a matcher allows."""

    def __init__(self, *arguments: Any, matcher: Matcher, on_end: Callable[[Tally], None] = lambda tally: None):
        """matcher: at the beginning of the form; on_end: called with the tally, however the answer ends."""
        self.matcher, self.tally, self._on_end = matcher, Tally(), on_end
        self._ids: list[int] = []  # accepted
        self._awaited: list[int] = []  # forced tokens that come next
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._ahead = FIRST_AHEAD
        self._is_whole = self._is_cut = False
        super().__init__(*arguments)
        self._held = self.place.step  # tokens of prompt and answer that the session is known to hold
        self._random = random.Random(self.config.random_seed)
        self._sampler = Sampler(self.config.temperature, self.config.top_k, self.config.top_p)
        self._stops = [word.encode(errors="surrogatepass") for word in self.stop_words.words]
        self._resumes_with = 0  # tokens ahead after the next that is chosen, if it is not the engine's first
        self._width = self._sampler.width
        # One less than the session has room for: TurboMind never makes the last token.
        room = self.generator.session_len - len(self.prompt.ids) - 1
        self._limit = min(self.config.max_new_tokens, room)

    async def _run(self) -> None:
        try:
            self._put_in_forced()
            if not self._is_over():
                self._held = await self._compute_in_parts()
            while not self._is_over():
                await (self._run_ahead() if self._ahead else self._ask())
                self._put_in_forced()
        finally:
            self._on_end(self.tally)

    def _has_held_prompt(self) -> bool:
        return self._held >= len(self.prompt.ids)  # a form that leaves no choice needs no engine

    def _is_over(self) -> bool:
        self._is_whole = self._is_whole or (self.matcher.must_end and not self._is_cut)
        return self._is_whole or self._is_cut or self.is_cancelled or len(self._ids) >= self._limit

    async def _run_ahead(self) -> None:
        """Have the engine make some tokens, and accept those up to the first that is not allowed."""
        asked = min(self._ahead, self._limit - len(self._ids))
        before, is_good, made, logprobs = len(self._ids), True, 0, None
        prompt = self._whole_prompt()
        with_candidates = self._sampler.top_k == GREEDY and asked <= WITH_CANDIDATES
        config = self._config(max_new_tokens=asked, random_seed=self._random.getrandbits(SEED_BITS))
        if with_candidates:
            config.top_k, config.logprobs, config.temperature = FEW, FEW, COLD
        async with aclosing(self._outputs(prompt, config, with_candidates)) as outputs:
            async for output in outputs:
                new, made, logprobs = output.token_ids[made:], len(output.token_ids), output.logprobs
                for token in new:
                    is_good = is_good and self._may_follow(token, logprobs, len(self._ids) - before)
                    is_good = is_good and self._accept(token)
                self._publish()
        accepted = len(self._ids) - before
        self._held = len(prompt.ids) + accepted
        self.tally.taken_back += made - accepted
        next_candidates = logprobs[accepted] if logprobs and accepted < len(logprobs) else None
        if is_good and made < asked and not self.is_cancelled:
            is_good = self._may_end(next_candidates)
        self._plan_next(is_good, accepted)
        if not is_good and next_candidates and not self._awaited:
            self._choose(Candidates.of(next_candidates))

    def _may_follow(self, token: int, logprobs: Logprobs, place: int) -> bool:
        """Whether the engine's token is its likeliest where candidates tell that; at COLD it may draw another."""
        return bool(self._awaited) or not logprobs or token == next(iter(logprobs[place]))

    def _may_end(self, candidates: dict[int, float] | None) -> bool:
        """Whether the engine may end the answer where it did; the answer is whole then."""
        is_likeliest = not candidates or next(iter(candidates)) in self.matcher.vocabulary.stop_ids
        self._is_whole = is_likeliest and self.matcher.may_end and not self._awaited
        return self._is_whole

    def _plan_next(self, is_good: bool, accepted: int) -> None:
        """Decide how far the engine runs ahead next.

        A greedy answer goes as far as it came before the token that was not allowed, and one further for the next such
        token: what repeats itself, such as a list of objects, is then taken back least.
        """
        self._resumes_with = min(accepted + 1, MOST_AHEAD) if self._sampler.top_k == GREEDY else 0
        if is_good:
            self._ahead = min(2 * self._ahead, MOST_AHEAD)
        else:
            self._ahead = self._resumes_with if self._awaited else 0

    async def _ask(self) -> None:
        """Ask the engine for one token with its candidates, and put in one that is allowed."""
        prompt = self._whole_prompt()
        if self._width == MOST:
            await self._wait_for_others()
        candidates = None if self.is_cancelled else await self._candidates(prompt)
        self._held = len(prompt.ids)
        if candidates is not None:  # else the client left
            self.tally.outside += self._choose(candidates) * candidates.outside

    def _choose(self, candidates: Candidates) -> bool:
        """Put in the candidate that the answer goes on with, if these settle it; else more are asked for next."""
        allowed = self._allowed()
        if self._width < MOST and not self._sampler.is_settled(candidates, allowed):
            self._width = MOST  # the next question is the same with more candidates
            self._ahead = 0
            return False
        self.tally.chosen += 1
        token = self._sampler.choose(candidates, allowed, self._random)
        if token in candidates.ids[:FEW]:
            self._width = self._sampler.width
        if token is None:
            self.tally.unlisted += 1
            token = self.matcher.vocabulary.plainest(allowed)
        self._put_in(token)
        if token == candidates.ids[0]:
            self._ahead = FIRST_AHEAD
        else:
            self._ahead = self._resumes_with if self._width < MOST else 0
        return True

    def _allowed(self) -> Allowed:
        """The tokens that may come next; with ignore_eos the end is one only where nothing else is."""
        allowed = self.matcher.allowed()
        if self.config.ignore_eos and not self.matcher.must_end:
            allowed[list(self.matcher.vocabulary.stop_ids)] = False
        return allowed

    def _put_in(self, token: int) -> None:
        """Take an allowed token into the answer, or end it. Raises RuntimeError where it is not allowed after all."""
        if token in self.matcher.vocabulary.stop_ids and self.matcher.may_end:
            self._is_whole = True
        elif not self._accept(token):
            raise RuntimeError(f"the grammar refuses the token {token}, with which the answer was to go on")

    async def _wait_for_others(self) -> None:
        """Beside free answers, ask for many candidates when all other bound answers do."""
        runs = self.generator.runs
        bound = sum(isinstance(run, BoundAnswer) for run in runs)
        if bound < len(runs):
            await asyncio.sleep(until_next(bound, asyncio.get_running_loop().time()))

    async def _candidates(self, prompt: Prompt) -> Candidates | None:
        """The likeliest tokens to follow a prompt, at temperature 1; None where the answer was cancelled."""
        config = self._config(
            max_new_tokens=1, top_k=self._width, top_p=1.0, temperature=1.0, logprobs=self._width, random_seed=None
        )
        found = None
        async for output in self._outputs(prompt, config, with_candidates=True):
            if output.logprobs:
                found = Candidates.of(output.logprobs[0])
        if found is None and not self.is_cancelled:
            raise RuntimeError("the engine gave no candidates")
        return found

    async def _outputs(self, prompt: Prompt, config: EngineGenerationConfig, with_candidates: bool) -> Outputs:
        """The engine's outputs but for the progress of the prompt; whenever this is closed, the engine has come to an end
        with the session, which another answer may have next."""
        outputs = self._infer(prompt, self._step(prompt), config, sequence_end=False, with_end_logprobs=with_candidates)
        try:
            async for output in outputs:
                self.generator.vitals.model.beat()
                if isinstance(output, PromptProgress):
                    self._tell(output.after(self._held - self.place.step))
                else:
                    yield output
        finally:
            async for _ in outputs:
                self.generator.vitals.model.beat()

    def _accept(self, token: int) -> bool:
        """Take a token into the answer, if it is the one awaited or, where none is, an allowed one."""
        if self._awaited:
            if token != self._awaited[0]:
                return False
            del self._awaited[0]
            self._ids.append(token)
            return True
        if token in self.matcher.vocabulary.stop_ids or not self.matcher.take(token):
            return False
        self._ids.append(token)
        self._awaited = self.matcher.take_forced()
        return True

    def _put_in_forced(self) -> None:
        """Take all that must come next into the answer, as far as it has room and to the end of its first stop word."""
        if not self._ids and not self._awaited:
            self._awaited = self.matcher.take_forced()
        until_stop = self.matcher.vocabulary.tokens_until(self._stops, self._ids, self._awaited)
        room = min(max(self._limit - len(self._ids), 0), until_stop)
        self._is_cut = len(self._awaited) > room
        self.tally.forced += min(room, len(self._awaited))
        self._ids += self._awaited[:room]
        self._awaited = []
        if self._ids:
            self._publish()

    def _whole_prompt(self) -> Prompt:
        return replace(self.prompt, ids=self.prompt.ids + self._ids)

    def _step(self, prompt: Prompt) -> int:
        """How many tokens of a prompt the session goes on from; at least one must be computed."""
        return min(self._held, len(prompt.ids) - 1)

    def _tell(self, progress: PromptProgress) -> None:
        """Pass the progress of the prompt on, while there is no token yet."""
        if not self._ids:
            super()._tell(progress)

    def _publish(self) -> None:
        self.progress.output, self.progress.prompt = Accepted(self._ids), None
        self.progress.changed.set()

    def _text(self, new_ids: list[int], state: DetokenizeState) -> tuple[str, DetokenizeState]:
        """The text that the grammar has judged; an unfinished character waits for its other bytes."""
        return self._decoder.decode(self.matcher.vocabulary.text(new_ids)), state

    def _why_ended(self, is_done: bool, is_stopped: bool) -> str | None:
        if is_stopped:
            return "stop"
        if not is_done:
            return None
        return "stop" if self._is_whole else "length"
