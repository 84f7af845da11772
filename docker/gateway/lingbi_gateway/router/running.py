"""The requests that run, by server, as far as this gateway knows: it placed them, and nginx tells when one ends."""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lingbi_gateway.router.affinity import RESULTS, Beginning, Placed, place, result

AWAY_S = 10.0  # as long as nginx leaves a server out after a failure
HOMES = 32768  # beginnings and turns whose last server is remembered; the servers keep far fewer sessions
LOST_S = 3600.0  # an end that nginx could not tell, because it was killed
ENDS = 4096  # of requests that were not placed, or not yet
MARK = " token="
LOGGED = f"{MARK}$request_id $servers_addr|$servers_status"  # nginx's log format: servers tried, and their statuses
REFUSED = "503"
FAILED = frozenset({"502", REFUSED, "504"})


@dataclass(frozen=True)
class _Began:
    """A request that was placed, and when. servers: those it was placed among; is_impatient: a 503 tells it when to come again,
    and its server is well."""

    server: str
    servers: Sequence[str]
    at_s: float
    is_impatient: bool

    def tried(self, told: str) -> list[tuple[str, str]]:
        """The servers that nginx tried, as the list has them, with their statuses. told: as in LOGGED, with addresses.

        A name in the list is no address, but the server that was chosen is the first one that is tried.
        """
        addresses, _, statuses = told.partition("|")
        found = list(zip(addresses.split(", "), statuses.split(", "), strict=False))
        is_router = found and found[0][0].startswith("unix:")  # which alone was asked
        if found and found[0][0] not in self.servers and not is_router:
            found[0] = self.server, found[0][1]
        return [(server, status) for server, status in found if server in self.servers]


class Running:
    """Counts, and the servers that have just failed. clock: seconds of a clock that only moves forward."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.loads: Counter[str] = Counter()
        self.results = dict.fromkeys(RESULTS, 0)
        self._clock = clock
        self._began: OrderedDict[str, _Began] = OrderedDict()  # by token, the oldest first
        self._ended: OrderedDict[str, None] = OrderedDict()  # tokens that are not among those, the oldest first
        self._failed: dict[str, float] = {}
        # By what requests begin with and by the last turns of conversations, the least recently used first.
        self._homes: OrderedDict[bytes | int, str] = OrderedDict()

    def begin(self, servers: Sequence[str], begins: Beginning, token: str, is_impatient: bool = False) -> Placed:
        """Place a request. servers: at least one; token: with which nginx tells its end.

        It counts nowhere if its end was told before: its client left, or nginx gave up, before it was its turn.
        """
        now = self._clock()
        self._forget(now)
        here = [server for server in servers if self._is_here(server, now)] if self._failed else servers
        if token in self._ended:
            return place(here or servers, self.loads, begins)
        home = self._home(begins)
        placed = place(here or servers, self.loads, begins, home)
        self.results[result(placed, home)] += 1
        self._remember(begins, placed.server)
        self.loads[placed.server] += 1
        self._began[token] = _Began(placed.server, servers, now, is_impatient)
        return placed

    def end(self, told: str) -> None:
        """Count a request as ended. told: what nginx logs then, as LOGGED has it."""
        token, _, tried = told.rpartition(MARK)[2].strip().partition(" ")
        began = self._began.pop(token, None)
        if began is None:
            self._ended[token] = None
            if len(self._ended) > ENDS:
                self._ended.popitem(last=False)
            return
        self._leave(began.server)
        for server, status in began.tried(tried):
            if began.is_impatient and status == REFUSED:
                continue
            if status in FAILED:
                self._failed[server] = self._clock()
            elif status.isdecimal():
                self._failed.pop(server, None)

    def _is_here(self, server: str, now: float) -> bool:
        return now - self._failed.get(server, now - AWAY_S) >= AWAY_S

    def _home(self, begins: Beginning) -> str | None:
        """The server of the conversation's last turn, which this request takes the place of; else of the last request that
        began alike."""
        last_turn = None if begins.before is None else self._homes.pop(begins.before, None)
        return last_turn or self._homes.get(begins.digest)

    def _remember(self, begins: Beginning, server: str) -> None:
        for key in (begins.digest, begins.now):
            if key is not None:
                self._homes[key] = server
                self._homes.move_to_end(key)
        while len(self._homes) > HOMES:
            self._homes.popitem(last=False)

    def _leave(self, server: str) -> None:
        self.loads[server] -= 1
        if self.loads[server] <= 0:
            del self.loads[server]

    def _forget(self, now: float) -> None:
        while self._began and now - next(iter(self._began.values())).at_s > LOST_S:
            self._leave(self._began.popitem(last=False)[1].server)
