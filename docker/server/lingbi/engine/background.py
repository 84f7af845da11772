"""When what is asked in the background may begin, so that those who wait for an answer hardly notice it.

On a GPU an answer of the background costs others most while its prompt is computed: a picture's takes a step of its own, for
which all running answers, and the next prompt, wait. So the beginnings are what is limited here: how many prompts the engine
has at once, which part of the time they take, and that none begins while somebody waits for a first token.
Pure bookkeeping, without an event loop or threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """alone: prompts of the background that the engine has at once while nobody asks; beside: the same while somebody does;
    places: the part of all places that its answers may have then; share: the part of the time that its prompts may take
    while others' answers run; part: tokens of a prompt that the engine computes at once while somebody asks; quiet_s: after so
    long without a request, nobody asks; patience_s: after so long without a beginning, one does not wait for others' first
    tokens, nor does a prompt that began so long ago.
    """

    alone: int = 4
    beside: int = 1
    places: float = 0.25
    share: float = 0.1
    part: int = 384
    quiet_s: float = 5.0
    patience_s: float = 10.0


class Background:
    """Who asks, and what of the background has begun. on_change: told when more may begin; on_begin: when something has."""

    def __init__(self, rules: Rules | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.rules, self.clock = rules or Rules(), clock
        self.on_change: Callable[[], None] = lambda: None
        self.on_begin: Callable[[], None] = lambda: None
        self.inside: set[Hashable] = set()  # requests of those who wait
        self.unanswered: set[Hashable] = set()  # of these, those without a first token
        self.seen: float | None = None  # when somebody asked last
        self.beginning: dict[Hashable, float] = {}  # prompts of the background that are computed, since when
        self.began, self.next = clock(), 0.0

    # What others do.

    def arrive(self, request: Hashable) -> None:
        """Somebody asks, and waits for the answer."""
        self.inside.add(request)
        self.unanswered.add(request)
        self.seen = self.clock()

    def answer(self, request: Hashable) -> None:
        """A request has its first token."""
        if request in self.unanswered:
            self.unanswered.discard(request)
            self.on_change()

    def leave(self, request: Hashable) -> None:
        """A request has ended; one that did not arrive is passed over."""
        if request in self.inside:
            self.inside.discard(request)
            self.unanswered.discard(request)
            self.seen = self.clock()
            self.on_change()

    @property
    def is_alone(self) -> bool:
        """Whether nobody asks, nor has for a while."""
        return not self.inside and (self.seen is None or self.clock() - self.seen >= self.rules.quiet_s)

    # What the background does.

    def may_begin(self, running: int, places: int) -> bool:
        """Whether one more of the background may begin beside so many of it that run, of so many places."""
        rules, now = self.rules, self.clock()
        if self.is_alone:
            return len(self.beginning) < rules.alone
        if len(self.beginning) >= rules.beside or running >= max(1, int(rules.places * places)):
            return False
        return self.may_go_on and (not self.inside or now >= self.next)

    def begin(self, answer: Hashable) -> None:
        """The engine begins with a prompt of the background."""
        self.beginning[answer] = self.began = self.clock()
        self.on_begin()

    def parts(self, tokens: int) -> bool:
        """Whether so many tokens of a prompt are too many to be computed at once."""
        return not self.is_alone and tokens > self.rules.part

    @property
    def may_go_on(self) -> bool:
        """Whether nobody's first token is in the way of a prompt, nor of the rest of one of which a part is computed."""
        return not self.unanswered or self.clock() - self.began >= self.rules.patience_s

    def go_on(self, answer: Hashable, paused_s: float) -> None:
        """A prompt goes on after a pause, which does not count as time that it takes."""
        if answer in self.beginning:
            self.beginning[answer] += paused_s

    def begun(self, answer: Hashable) -> None:
        """It has its first token, or has ended; another one is passed over."""
        since = self.beginning.pop(answer, None)
        if since is not None:
            self.next = since + (self.clock() - since) / self.rules.share
            self.on_change()
