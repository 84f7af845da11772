"""How long a fetch goes on without a new byte."""

import threading
import time

import tenacity

from lingbi.errors import FetchError
from lingbi.weights.failures import HubFailure, Stopped

LONGEST_WAIT_S = 8
LONGEST_ASKED_WAIT_S = 120
_backoff = tenacity.wait_exponential_jitter(initial=0.5, max=LONGEST_WAIT_S, jitter=0.5)


class Patience:
    """Ends a fetch when nothing has arrived, on any connection, for limit_s seconds.

    Retries are not counted: a line that drops a thousand times still ends right, as long as each
    time brings something.
    """

    def __init__(self, limit_s: float, stop: threading.Event):
        self.limit_s = limit_s
        self._stop = stop
        self._last = time.monotonic()

    def progress(self) -> None:
        self._last = time.monotonic()

    def is_over(self, _state=None) -> bool:
        return self._stop.is_set() or time.monotonic() - self._last > self.limit_s

    def call(self, function, *arguments):
        """Call until it succeeds. Raises FetchError when patience is over, with the last failure."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(HubFailure),
            stop=self.is_over,
            wait=_wait,
            sleep=self._stop.wait,
            reraise=True,
        )
        try:
            return retrying(function, *arguments)
        except HubFailure as failure:
            if self._stop.is_set():
                raise Stopped("stopped, as another part of the fetch failed") from failure
            raise FetchError(
                f"{failure}; nothing new for {time.monotonic() - self._last:.0f} s (limit {self.limit_s} s). "
                "What has arrived is kept: run the same command again to go on"
            ) from failure


def _wait(state: tenacity.RetryCallState) -> float:
    asked = state.outcome.exception().retry_after_s
    return _backoff(state) if asked is None else min(max(asked, 0), LONGEST_ASKED_WAIT_S)
