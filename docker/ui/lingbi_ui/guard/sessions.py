"""Who is logged in. A session ends when its login is removed or gets another password, at logout, and after a time."""

import logging
import time
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import Scope

from lingbi_ui.logins import Known, Logins
from lingbi_ui.settings import ConfigurationError

MAX_SESSIONS = 100  # of a login; the oldest ends
log = logging.getLogger("uvicorn.error")


@dataclass(frozen=True)
class Session:
    """login: (salt, hash) at the time of the login."""

    name: str
    login: tuple[bytes, str]
    ends_at: float


class Sessions(MutableMapping[str, str]):
    """{token: name} of those who may come in now: what Gradio keeps as `tokens`, judged at every look."""

    def __init__(self, logins: Logins, hours: int, clock: Callable[[], float] = time.monotonic):
        self.logins, self.lasts_s, self.clock = logins, hours * 3600, clock
        self._sessions: dict[str, Session] = {}

    def __getitem__(self, token: str) -> str:
        session = self._sessions[token]
        if not self._is_valid(session, self._known()):
            del self._sessions[token]
            raise KeyError(token)
        return session.name

    def __setitem__(self, token: str, name: str) -> None:
        login = self._known().get(name)
        if login is None:  # removed while the password was being checked
            return
        self._drop_ended()
        own = [known for known, session in self._sessions.items() if session.name == name]
        for oldest in own[: max(0, len(own) + 1 - MAX_SESSIONS)]:
            del self._sessions[oldest]
        self._sessions[token] = Session(name, login, self.clock() + self.lasts_s)

    def __delitem__(self, token: str) -> None:
        del self._sessions[token]

    def __iter__(self) -> Iterator[str]:
        self._drop_ended()
        return iter(list(self._sessions))

    def __len__(self) -> int:
        return len(self._sessions)

    def name_in(self, scope: Scope) -> str | None:
        """The login whose cookie a request carries, if its session lasts."""
        cookies = cookie_parser(Headers(scope=scope).get("cookie", ""))
        tokens = [value for name, value in cookies.items() if name.startswith("access-token-")]
        return next((name for name in map(self.get, tokens) if name), None)

    def _known(self) -> Known:
        try:
            return self.logins.read()
        except ConfigurationError as error:
            log.error("nobody may come in: %s", error)
            return {}

    def _is_valid(self, session: Session, known: Known) -> bool:
        return known.get(session.name) == session.login and self.clock() < session.ends_at

    def _drop_ended(self) -> None:
        known = self._known()
        self._sessions = {token: one for token, one in self._sessions.items() if self._is_valid(one, known)}
