"""What somebody wants of a key or a group, from the command line or from JSON, as a checked Change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from lingbi.accounts.keys.changes import Change
from lingbi.accounts.keys.terms import (
    MOST_AT_ONCE,
    MOST_WEIGHT,
    BadTerm,
    Limits,
    count_of,
    end_of,
    flag_of,
    models_of,
    name_of,
    text_of,
)

NOTE, OWNER = 500, 200  # characters
KEY_FIELDS = ("owner", "note", "group", "is_admin", "weight", "concurrency", "models", "ends_at")
GROUP_FIELDS = ("note", "concurrency", "models", "ends_at")
MEMBER_FIELDS = ("weight", "concurrency")


@dataclass(frozen=True)
class Reader:
    """Reads wishes. zone: of dates; now: what is past; known: the name under which a model is served, or None."""

    zone: ZoneInfo
    now: float
    known: Callable[[str], str | None]

    def key(self, given: Mapping[str, Any], limits: Limits) -> Change:
        """The change of a key: given has some of KEY_FIELDS. Raises BadTerm."""
        return Change(self._values(given, KEY_FIELDS), limits)

    def group(
        self, given: Mapping[str, Any], limits: Limits, member: Mapping[str, Any], member_limits: Limits
    ) -> Change:
        """The change of a group: given has some of GROUP_FIELDS, member some of MEMBER_FIELDS. Raises BadTerm."""
        members = {f"member_{name}": value for name, value in self._values(member, MEMBER_FIELDS).items()}
        return Change(self._values(given, GROUP_FIELDS) | members, limits, member_limits)

    def _values(self, given: Mapping[str, Any], allowed: tuple[str, ...]) -> dict[str, Any]:
        for name in given:
            if name not in allowed:
                raise BadTerm(name, f"there is no such field here; there are {', '.join(allowed)}")
        return {COLUMNS.get(name, name): self._value(name, value) for name, value in given.items()}

    def _value(self, name: str, value: Any) -> Any:
        if name == "group":
            return None if value in (None, "", "none") else name_of(value, "group")
        if name in ("owner", "note"):
            return text_of(name, value, OWNER if name == "owner" else NOTE)
        if name == "is_admin":
            return flag_of(name, value)
        if name == "models":
            return models_of(value, self.known)[0]
        if name == "ends_at":
            return end_of(value, self.zone, self.now)
        return count_of(name, value, *((MOST_WEIGHT, 1) if name == "weight" else (MOST_AT_ONCE, 0)))


COLUMNS = {"group": "group_name"}
