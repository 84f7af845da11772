"""What the server knows of a key while it serves: no statement of the database is needed to answer a request."""

from dataclasses import dataclass

KEY, PAGE, VISITOR = "key", "page", "visitor"  # kinds of accounts
MEASURES = ("requests", "tokens", "images")
PERIODS = ("minute", "day", "month")


@dataclass(frozen=True)
class Limit:
    """The most that a subject may use in a period.

    subject_kind: `key`, `group` (all its keys together) or `member` (each key of the group for itself); subject: its name;
    measure: one of MEASURES; period: one of PERIODS; most: 0 allows nothing.
    """

    subject_kind: str
    subject: str
    measure: str
    period: str
    most: int


@dataclass(frozen=True)
class KeyFacts:
    """An account as one of its secrets opens it, with what its group says where it says nothing itself.

    kind: `key`, `page` (the page's own) or `visitor` (a login of the page); weight: how many ordinary keys it counts as
    where all wait, None: by its concurrency; concurrency, group_concurrency: most requests at once of the key, and of its
    group together, None: the setting's, or no limit; models: that it may use, None: all; ends_at: seconds since the
    epoch; limits: its own and those of its group.
    """

    name: str
    kind: str = KEY
    group: str | None = None
    is_admin: bool = False
    weight: int | None = None
    concurrency: int | None = None
    group_concurrency: int | None = None
    models: frozenset[str] | None = None
    ends_at: float | None = None
    limits: tuple[Limit, ...] = ()
    is_revoked: bool = False

    def has_ended(self, now: float) -> bool:
        """Whether it was revoked, or its end has come."""
        return self.is_revoked or (self.ends_at is not None and self.ends_at <= now)

    def may_use(self, model: str) -> bool:
        """Whether it may ask this model."""
        return self.models is None or model in self.models
