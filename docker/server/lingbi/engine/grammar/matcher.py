"""Where an answer stands in its grammar, and which tokens may follow."""

from typing import Any

import numpy as np
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

from lingbi.api_errors import BadRequest
from lingbi.engine.grammar.vocabulary import Allowed, Vocabulary


class Matcher:
    """One answer's way through a grammar. Tokens are taken in the order of the answer; none is taken back.

    core: llguidance's matcher, which belongs to this object; place: of the grammar in the request.
    """

    def __init__(self, core: Any, vocabulary: Vocabulary, place: str):
        self._core, self.vocabulary, self._place = core, vocabulary, place

    def take(self, token: int) -> bool:
        """Go on with a token, if it is allowed here. Raises BadRequest where the grammar needs too much work."""
        is_taken = bool(self._core.try_consume_tokens([token]))
        self._check()
        return is_taken

    def take_forced(self) -> list[int]:
        """Go on with the text that must come next whatever is chosen, as tokens; empty where there is a choice.

        Raises BadRequest as `take` does, and RuntimeError where the grammar refuses one of them: it would stand still.
        """
        tokens: list[int] = self._core.compute_ff_tokens()
        self._check()
        for token in tokens:
            if not self.take(token):
                raise RuntimeError(f"{self._place}: the grammar refuses the token {token}, which must come next")
        return tokens

    def allowed(self) -> Allowed:
        """Which tokens may come next; the end tokens are among them where the answer may end."""
        size = len(self.vocabulary.tokens)
        words = allocate_token_bitmask(1, size)
        fill_next_token_bitmask(self._core, words)
        self._check()
        return np.unpackbits(words.view(np.uint8), bitorder="little")[:size].astype(bool)

    @property
    def may_end(self) -> bool:
        """Whether the answer so far is a whole one."""
        return bool(self._core.is_accepting())

    @property
    def must_end(self) -> bool:
        """Whether the answer is whole, and nothing may follow."""
        return bool(self._core.is_stopped())

    def copy(self, place: str | None = None) -> "Matcher":
        """Another matcher that stands where this one does."""
        return Matcher(self._core.deep_copy(), self.vocabulary, place or self._place)

    def _check(self) -> None:
        if self._core.is_error():
            raise BadRequest(f"{self._place}: needs too much work ({first_line(self._core.get_error())})", self._place)


def first_line(message: str) -> str:
    """What llguidance says first; the rest shows its own state."""
    return message.strip().split("\n")[0][:200]
