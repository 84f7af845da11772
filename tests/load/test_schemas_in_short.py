"""The run of tests/load/schemas.py in short, and that it can fail."""

import asyncio

import pytest

from tests.client import metric
from tests.load import schemas
from tests.load.schemas import FORMS, ask_all, fault


def test_every_form_twice(demo_server):
    outcome = asyncio.run(ask_all(demo_server, 2 * len(FORMS), 8))
    assert outcome.faults == [] and outcome.valid == 2 * len(FORMS)
    assert metric(demo_server, "lingbi_sessions") == 0


def test_answers_that_are_not_bound_are_seen(demo_server, monkeypatch):
    monkeypatch.setattr(schemas, "FORMS", [("schema", "unbound", {"user": {"type": "integer"}})])
    monkeypatch.setattr(schemas, "body", lambda server, turns, user, **options: unbound(server, turns, **options))
    outcome = asyncio.run(ask_all(demo_server, 2, 2))
    assert outcome.valid == 0 and len(outcome.faults) == 2


def unbound(server, turns, **options) -> dict:
    return {"model": server["model"], "messages": turns, "max_tokens": 8, **options}


@pytest.mark.parametrize(
    ("kind", "source", "text", "reason"),
    [
        ("schema", {"type": "integer"}, '"a"', "stop"),
        ("schema", {"type": "integer"}, "1", "length"),
        ("schema", {"type": "integer"}, "1 2", "stop"),
        ("regex", "a+", "ab", "stop"),
        ("choice", ["a"], "b", "stop"),
    ],
)
def test_what_is_wrong_is_seen(kind, source, text, reason):
    assert fault(kind, {"source": source}, text, reason)
