"""A client without a key keeps the router from nobody else, and what is told of a router that does not answer."""

import json
import threading
import time

import httpx
import pytest

from lingbi.launch.supervision import wait_until
from lingbi_gateway.routes import ROUTER_TIMEOUT_S
from tests.client import CHAT
from tests.conftest import suspended
from tests.gateway.conftest import running_gateway
from tests.gateway.test_model_routing import router_of

MIB = 1 << 20
QUOTES = b'{"model": "one", "x": [' + b",".join([b'"' + b'\\"' * MIB + b'"'] * 14) + b"]}"
PICTURE = json.dumps({"model": "one", "x": "A" * 200_000}).encode()


@pytest.fixture
def two(upstreams):
    """A gateway before the models `one` and `two`."""
    one, other = upstreams(2)
    with running_gateway([f"one={one.address}", f"two={other.address}"], MAX_BODY_MIB=64) as gateway:
        assert wait_until(lambda: router_of(gateway), 10)
        yield gateway


def test_a_body_of_28_mib_of_quotation_marks_holds_nobody_up(two):
    attack = threading.Thread(target=httpx.post, args=(two.url + CHAT,), kwargs={"content": QUOTES, "timeout": 60})
    attack.start()
    began, answers = time.monotonic(), []
    while attack.is_alive() or not answers:
        answers.append(httpx.post(two.url + CHAT, content=PICTURE, timeout=60))
    attack.join()
    assert {answer.status_code for answer in answers} == {200} and time.monotonic() - began < ROUTER_TIMEOUT_S


def test_a_router_that_does_not_answer_is_told_as_such(two):
    with suspended(router_of(two).parent(), router_of(two)):
        answers = [
            httpx.post(two.url + CHAT, json={"model": "one"}, timeout=30),
            httpx.get(two.url + "/v1/models", timeout=30),
        ]
    for answer in answers:
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], answer.headers["retry-after"]) == (503, "router_timeout", "5")
        assert f"within {ROUTER_TIMEOUT_S} s" in error["message"]
