"""Bodies and answers of /v1/admin/keys and /v1/admin/groups. Whether a value may be kept, accounts/keys/terms.py says."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Measure = Literal["requests", "tokens", "images"]
Period = Literal["minute", "day", "month"]
Limits = dict[Measure, dict[Period, int | str | None]]


class Body(BaseModel):
    """What all bodies have in common: a field that is not here is refused, as a slip."""

    model_config = ConfigDict(extra="forbid", strict=True)


class KeyChange(Body):
    """What to change of a key; fields that are left out stay as they are, and null takes a value away.

    models: names; ["all"] says the same as null. ends_at: seconds since the epoch, a day as in 2026-12-31 (to its end), or
    a time. limits: {measure: {period: most}}.
    """

    owner: str = ""
    note: str = ""
    group: str | None = None
    is_admin: bool = False
    weight: int | None = None
    concurrency: int | None = None
    models: list[str] | None = None
    ends_at: float | str | None = None
    limits: Limits = {}


class NewKey(KeyChange):
    """A key to be made; fields that are left out say nothing of it."""

    name: str


class GroupChange(Body):
    """What to change of a group. concurrency, limits: of all its keys together; member_…, members: of each of its keys."""

    note: str = ""
    concurrency: int | None = None
    member_concurrency: int | None = None
    member_weight: int | None = None
    models: list[str] | None = None
    ends_at: float | str | None = None
    limits: Limits = {}
    members: Limits = {}


class NewGroup(GroupChange):
    """A group to be made."""

    name: str


class Rotation(Body):
    """How long the secrets that a key has go on beside the new one, in seconds."""

    overlap_s: float = 86_400


class Nothing(Body):
    """No field at all."""


class MadeKey(BaseModel):
    """A key that was made: it is shown this once, for only its digest is kept."""

    name: str
    key: str


class KeySecret(BaseModel):
    """One of a key's secrets: the first 8 digits of its SHA-256, and where it is from."""

    digest: str
    origin: Literal["command", "file"]
    host: str | None
    created_at: float
    ends_at: float | None


class KeyInfo(BaseModel):
    """A key. in_force: what counts, with what its group says.

    unpublished_models: those of its models that no published one is called: names of the lab's own folders, or slips.
    """

    name: str
    kind: Literal["key", "page", "visitor"]
    state: Literal["active", "ended", "revoked", "no secret"]
    owner: str
    note: str
    group: str | None
    is_admin: bool
    weight: int | None
    concurrency: int | None
    models: list[str] | None
    unpublished_models: list[str]
    limits: dict[str, dict[str, int]]
    created_at: float
    ends_at: float | None
    revoked_at: float | None
    in_force: dict[str, Any]
    secrets: list[KeySecret]


class KeyInfos(BaseModel):
    """Keys, in the order in which they were made."""

    object: Literal["list"] = "list"
    data: list[KeyInfo]


class GroupInfo(BaseModel):
    """A group, with the names of its keys. unpublished_models: as of a key."""

    name: str
    note: str
    keys: list[str]
    concurrency: int | None
    member_concurrency: int | None
    member_weight: int | None
    models: list[str] | None
    unpublished_models: list[str]
    ends_at: float | None
    limits: dict[str, dict[str, int]]
    members: dict[str, dict[str, int]]


class GroupInfos(BaseModel):
    """Groups, by name."""

    object: Literal["list"] = "list"
    data: list[GroupInfo]


class RemovedGroup(BaseModel):
    """A group that is there no longer, and how many keys were in it."""

    name: str
    keys: int
