"""Who is logged in with a key. Keys are held here, in memory only; a browser has a random name for a session."""

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

IDLE_S = 30 * 60
LASTS_S = 8 * 3600
MAX_SESSIONS, MAX_OF_ONE = 1024, 16  # of all together, and of one key; the one that was idle longest ends
Said = tuple[str, dict[str, str]]  # the name of a sentence, and what stands in it


@dataclass
class Session:
    """A session. key: the API key; visitor: a login of the page, which has no key; form: what each of the session's forms
    has to bring back; said: a sentence that the next page shows once; shown: (name, key) of a new key that it shows once."""

    key: str = field(repr=False)
    began_at: float
    seen_at: float
    is_admin: bool = False
    visitor: str = ""
    form: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    said: Said | None = None
    shown: tuple[str, str] | None = field(default=None, repr=False)

    def take_said(self) -> Said | None:
        said, self.said = self.said, None
        return said

    def take_shown(self) -> tuple[str, str] | None:
        shown, self.shown = self.shown, None
        return shown


class Sessions:
    """{digest of a token: session}; a session ends when it is idle, after a time, at logout and with its key."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self._sessions: dict[str, Session] = {}

    def begin(self, key: str, is_admin: bool) -> str:
        """A new session; returns its token, for the browser alone."""
        self._drop_ended()
        own = [name for name, one in self._sessions.items() if one.key == key]
        for names, most in ((own, MAX_OF_ONE), (list(self._sessions), MAX_SESSIONS)):
            for oldest in names[: max(0, len(names) + 1 - most)]:
                self._sessions.pop(oldest, None)
        token, now = secrets.token_urlsafe(32), self.clock()
        self._sessions[_digest(token)] = Session(key, now, now, is_admin)
        return token

    def find(self, token: str) -> Session | None:
        """The session of a token that lasts; being asked for, it is idle no longer."""
        self._drop_ended()
        session = self._sessions.pop(_digest(token), None)
        if session is not None:
            session.seen_at = self.clock()
            self._sessions[_digest(token)] = session  # the dictionary is in the order of last use
        return session

    def end(self, token: str) -> None:
        self._sessions.pop(_digest(token), None)

    def __len__(self) -> int:
        return len(self._sessions)

    def _drop_ended(self) -> None:
        now = self.clock()
        self._sessions = {
            name: one
            for name, one in self._sessions.items()
            if now - one.seen_at < IDLE_S and now - one.began_at < LASTS_S
        }


def _digest(token: str) -> str:
    """Looked up by its digest, so that the time of a look tells nothing of the tokens that there are."""
    return hashlib.sha256(token.encode()).hexdigest()
