"""Who asks, and how much of the page one visitor may take.

A visitor is a login where there are logins, else an address. A class behind one address asks as one visitor.
"""

import ipaddress
from dataclasses import dataclass

from starlette.types import Scope

from lingbi_ui.settings import Settings

VISITOR = "lingbi.visitor"  # where a request's scope has it
STREAMS_PER_QUESTION, SPARE_STREAMS = 3, 8  # a tab has its answers, its uploads' progress and its heartbeat
BYTES_PER_QUESTION = 160 << 10  # of questions at work: many short ones, or a few of the largest
RATE_PER_QUESTION_S = 0.5
MIB = 1 << 20


@dataclass(frozen=True)
class Visitor:
    """name: a login's, or an address."""

    name: str
    is_login: bool = False


@dataclass(frozen=True)
class Share:
    """What one visitor may take, or all together. Everything follows from the questions at a time."""

    questions: int
    files_bytes: int

    @property
    def streams(self) -> int:
        return STREAMS_PER_QUESTION * self.questions + SPARE_STREAMS

    @property
    def held_bytes(self) -> int:
        """Of the bodies of questions; at least two of the largest fit."""
        return max(2 * MIB, BYTES_PER_QUESTION * self.questions)

    @property
    def uploads(self) -> int:
        return max(4, self.questions // 4)

    @property
    def posts_per_s(self) -> float:
        return max(5.0, RATE_PER_QUESTION_S * self.questions)


@dataclass(frozen=True)
class Shares:
    login: Share
    address: Share
    all: Share

    def of(self, visitor: Visitor) -> Share:
        return self.login if visitor.is_login else self.address


def shares(settings: Settings) -> Shares:
    return Shares(
        Share(settings.login_questions, settings.login_files_mib * MIB),
        Share(settings.address_questions, settings.address_files_mib * MIB),
        Share(settings.all_questions, settings.all_files_mib * MIB),
    )


def visitor_of(scope: Scope, login: str | None) -> Visitor:
    """The visitor of a request: its login, else the address that the gateway passes on."""
    if login is not None:
        return Visitor(login, is_login=True)
    return Visitor(_network((scope.get("client") or ("unknown", 0))[0]))


def visitor_in(scope: Scope) -> Visitor:
    """The visitor of a request that has passed the gate; where there is no gate, its address."""
    found: Visitor | None = scope.get(VISITOR)
    return found or visitor_of(scope, None)


def _network(address: str) -> str:
    """The address, or for IPv6 its network of 64 bits, all of which one machine may have."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if found.version == 4:
        return str(found)
    return str(ipaddress.ip_network((found, 64), strict=False))
