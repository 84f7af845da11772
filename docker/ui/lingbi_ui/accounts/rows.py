"""The rows of the table of keys: what the API tells of a key, beside its use; filtered, sorted and cut into pages."""

import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

PAGE_ROWS = 100
STATES = ("active", "ended", "revoked", "no secret")
MEASURES, PERIODS = ("tokens", "requests", "images"), ("month", "day", "minute")
TOLD = (  # by the API, and shown as it is
    "name",
    "kind",
    "state",
    "owner",
    "note",
    "is_admin",
    "created_at",
    "ends_at",
    "revoked_at",
    "weight",
    "concurrency",
)
Shown = TypeVar("Shown")


@dataclass(frozen=True)
class Limit:
    """The most of a measure in a period, for the key or its group; used: so far, None where nobody counts it."""

    subject_kind: str
    measure: str
    period: str
    most: int
    used: int | None = None
    remaining: int | None = None
    resets_at: float | None = None

    @property
    def share(self) -> float:
        """How much of it is used: 0 to 1 and beyond."""
        return (self.used or 0) / self.most if self.most else 1.0


@dataclass(frozen=True)
class Row:
    """A key; own_limits: what is set for it alone, limits: all that count; use: {measure: so much in this month}."""

    name: str
    kind: str
    owner: str
    group: str
    note: str
    state: str
    is_admin: bool
    created_at: float | None
    ends_at: float | None
    revoked_at: float | None
    weight: int | None
    concurrency: int | None
    models: tuple[str, ...] | None
    own_limits: tuple[Limit, ...] = ()
    limits: tuple[Limit, ...] = ()
    use: Mapping[str, float] = field(default_factory=dict)

    @property
    def tokens(self) -> float:
        return total_tokens(self.use)


def total_tokens(use: Mapping[str, Any]) -> float:
    """Prompt and answer together."""
    return float((use.get("prompt_tokens") or 0) + (use.get("completion_tokens") or 0))


def row_of(key: Mapping[str, Any], use: Mapping[str, float]) -> Row:
    """The row of a key as the API tells it; how much of its limits is used is still to be said."""
    own = {name: key[name] for name in TOLD}
    models = key["models"]
    in_force = [Limit(one["of"], one["measure"], one["period"], one["most"]) for one in key["in_force"]["limits"]]
    return Row(
        **own,
        group=key["group"] or "",
        models=tuple(models) if models is not None else None,
        own_limits=limits_of(key["limits"], "key"),
        limits=in_order(in_force),
        use=use,
    )


def limits_of(told: Mapping[str, Mapping[str, int]], subject_kind: str) -> tuple[Limit, ...]:
    """Limits as the API tells them, {measure: {period: most}}, the longest period first."""
    found = [
        Limit(subject_kind, measure, period, most)
        for measure, periods in told.items()
        for period, most in periods.items()
    ]
    return in_order(found)


def in_order(limits: Iterable[Limit]) -> tuple[Limit, ...]:
    """The longest period first, and in it tokens."""
    return tuple(sorted(limits, key=lambda one: (_place(PERIODS, one.period), _place(MEASURES, one.measure))))


def _place(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else len(names)


@dataclass(frozen=True)
class Filter:
    """What a visitor looks for. Texts may stand anywhere in a name or an owner, in capitals or not; group: the whole name."""

    name: str = ""
    owner: str = ""
    group: str = ""
    state: str = ""
    sort: str = "name"
    is_down: bool = False
    page: int = 1

    @classmethod
    def of(cls, asked: Mapping[str, str]) -> "Filter":
        """From the query of an address; what makes no sense in it is left out."""
        page = asked.get("page", "1")
        return cls(
            name=asked.get("name", "").strip()[:200],
            owner=asked.get("owner", "").strip()[:200],
            group=asked.get("group", "").strip()[:200],
            state=asked.get("state", "") if asked.get("state") in STATES else "",
            sort=asked["sort"] if asked.get("sort") in ORDERS else "name",
            is_down=asked.get("down") == "1",
            page=int(page) if page.isascii() and page.isdecimal() and 0 < len(page) < 7 else 1,
        )

    def query(self, **changes: Any) -> dict[str, str]:
        """The query that asks for this; without what is as it begins."""
        known = {**self.__dict__, **changes}
        found = {name: str(known[name]) for name in ("name", "owner", "group", "state") if known[name]}
        found |= {"sort": known["sort"]} if known["sort"] != "name" else {}
        found |= {"down": "1"} if known["is_down"] else {}
        return found | ({"page": str(known["page"])} if known["page"] > 1 else {})

    def admits(self, row: Row) -> bool:
        """Whether a row is looked for."""
        has_texts = _folded(self.name) in _folded(row.name) and _folded(self.owner) in _folded(row.owner)
        return has_texts and self.group in ("", row.group) and self.state in ("", row.state)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


ORDERS: dict[str, Callable[[Row], Any]] = {
    "name": lambda row: _folded(row.name),
    "owner": lambda row: _folded(row.owner),
    "group": lambda row: _folded(row.group),
    "use": lambda row: row.tokens,
    "limits": lambda row: max((limit.share for limit in row.limits), default=-1.0),
    "ends": lambda row: math.inf if row.ends_at is None else row.ends_at,
    "state": lambda row: STATES.index(row.state),
}


@dataclass(frozen=True)
class Page(Generic[Shown]):
    """A part of a table. page: from 1 to pages; first, last: the numbers of its rows, from 1; count: of all rows."""

    rows: list[Shown]
    page: int
    pages: int
    first: int
    last: int
    count: int


def page_of(rows: Iterable[Row], wanted: Filter) -> Page[Row]:
    """The rows that a filter admits, in its order, and of them its page; the last one where there are not so many."""
    found = sorted(filter(wanted.admits, rows), key=ORDERS["name"])
    found.sort(key=ORDERS[wanted.sort], reverse=wanted.is_down)
    pages = max(1, math.ceil(len(found) / PAGE_ROWS))
    page = min(wanted.page, pages)
    first = (page - 1) * PAGE_ROWS
    shown = found[first : first + PAGE_ROWS]
    return Page(shown, page, pages, first + 1, first + len(shown), len(found))
