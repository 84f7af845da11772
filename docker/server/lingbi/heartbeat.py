"""Heartbeats of the engine's parts: whether each makes progress while it has work."""

import contextlib
import time
from collections.abc import Callable, Iterator


class Pulse:
    """One part of the engine: how much work it has, when it last made progress, and when it last completed work.

    One thread at a time may begin and end work.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.pending, self.last, self.done, self._clock = 0, clock(), clock(), clock

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Count the block as one piece of work of this part."""
        self.begin()
        is_done = False
        try:
            yield
            is_done = True
        finally:
            self.end(is_done)

    def begin(self) -> None:
        """One more piece of work has begun."""
        if not self.pending:
            self.beat()
        self.pending += 1

    def end(self, is_done: bool = True) -> None:
        """One piece of work has ended; is_done: it succeeded."""
        self.pending -= 1
        if is_done:
            self.beat()
            self.done = self.last

    def beat(self) -> None:
        """The part made progress: an image, a token or a turn."""
        self.last = self._clock()

    def stalled_s(self) -> float:
        """Seconds without a beat while there is work; 0 where there is none."""
        return self._clock() - self.last if self.pending else 0.0


class Vitals:
    """The vision encoder and the language model; `proven`: when a question about an image was last answered.

    The encoder's pulse is replaced by the one of ImageEncoder when a model is loaded.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self.encoder, self.model = Pulse(clock), Pulse(clock)
        self.proven = clock()

    def prove(self) -> None:
        """A question about an image was answered."""
        self.proven = self._clock()

    def unproven_s(self) -> float:
        """Seconds since a question about an image was last answered or an image was last encoded, whichever is longer ago.

        Answers about cached images prove nothing about the encoder.
        """
        return self._clock() - min(self.proven, self.encoder.done)

    def stalled(self, timeout_s: float) -> str | None:
        """A sentence about the part that is stalled, with the seconds; None if no part is."""
        for name, pulse in (("the vision encoder", self.encoder), ("the language model", self.model)):
            if pulse.stalled_s() > timeout_s:
                return f"{name} has not moved for {pulse.stalled_s():.0f} s while {pulse.pending} wait for it"
        return None
