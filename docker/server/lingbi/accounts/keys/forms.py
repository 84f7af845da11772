"""Keys and groups as JSON shows them, to programs and to administrators; no secret is in it, and of digests 8 digits."""

from collections.abc import Iterable
from typing import Any

from lingbi.accounts.facts import KeyFacts, Limit
from lingbi.accounts.keys.records import Account, Group, Records, Secret

ACTIVE, ENDED, REVOKED, NO_SECRET = "active", "ended", "revoked", "no secret"


def keys_form(records: Records, now: float) -> list[dict[str, Any]]:
    """All keys, in the order in which they were made."""
    facts = records.facts()
    secrets: dict[str, list[Secret]] = {}
    for secret in records.secrets:
        secrets.setdefault(secret.key, []).append(secret)
    return [_key_form(key, facts[name], secrets.get(name, []), now) for name, key in records.keys.items()]


def key_form(records: Records, name: str, now: float) -> dict[str, Any]:
    """One key. Raises KeyError for an unknown one."""
    secrets = [secret for secret in records.secrets if secret.key == name]
    return _key_form(records.keys[name], records.facts()[name], secrets, now)


def _key_form(key: Account, facts: KeyFacts, secrets: list[Secret], now: float) -> dict[str, Any]:
    return {
        "name": key.name,
        "kind": key.kind,
        "state": state_of(key, facts, secrets, now),
        "owner": key.owner,
        "note": key.note,
        "group": key.group_name,
        "is_admin": key.is_admin,
        "weight": key.weight,
        "concurrency": key.concurrency,
        "models": models_list(key.models),
        "limits": limits_form(limit for limit in facts.limits if limit.subject_kind == "key"),
        "created_at": key.created_at,
        "ends_at": key.ends_at,
        "revoked_at": key.revoked_at,
        "in_force": _in_force(facts),
        "secrets": [_secret_form(secret) for secret in secrets],
    }


def _in_force(facts: KeyFacts) -> dict[str, Any]:
    """What counts, with what the group says."""
    return {
        "weight": facts.weight,
        "concurrency": facts.concurrency,
        "models": None if facts.models is None else sorted(facts.models),
        "ends_at": facts.ends_at,
        "limits": [
            {"of": limit.subject_kind, "measure": limit.measure, "period": limit.period, "most": limit.most}
            for limit in facts.limits
        ],
    }


def _secret_form(secret: Secret) -> dict[str, Any]:
    return {
        "digest": secret.digest[:8],
        "origin": secret.origin,
        "host": secret.host or None,
        "created_at": secret.created_at,
        "ends_at": secret.ends_at,
    }


def state_of(key: Account, facts: KeyFacts, secrets: list[Secret], now: float) -> str:
    """ACTIVE, or why nobody gets in with it; a visitor of the page needs no secret."""
    if key.revoked_at is not None:
        return REVOKED
    if facts.has_ended(now):
        return ENDED
    is_open = key.kind == "visitor" or any(secret.ends_at is None or secret.ends_at > now for secret in secrets)
    return ACTIVE if is_open else NO_SECRET


def groups_form(records: Records) -> list[dict[str, Any]]:
    """All groups, by name."""
    return [group_form(records, name) for name in sorted(records.groups)]


def group_form(records: Records, name: str) -> dict[str, Any]:
    """One group. Raises KeyError for an unknown one."""
    group: Group = records.groups[name]
    return {
        "name": name,
        "note": group.note,
        "keys": [key.name for key in records.keys.values() if key.group_name == name],
        "concurrency": group.concurrency,
        "member_concurrency": group.member_concurrency,
        "member_weight": group.member_weight,
        "models": models_list(group.models),
        "ends_at": group.ends_at,
        "limits": limits_form(records.limits_of("group", name)),
        "members": limits_form(records.limits_of("member", name)),
    }


def models_list(models: str | None) -> list[str] | None:
    """Models as a list; None: all."""
    return None if models is None else [model for model in models.split(",") if model]


def limits_form(limits: Iterable[Limit]) -> dict[str, dict[str, int]]:
    """Limits as in {"tokens": {"day": 100000}}."""
    found: dict[str, dict[str, int]] = {}
    for limit in limits:
        found.setdefault(limit.measure, {})[limit.period] = limit.most
    return found
