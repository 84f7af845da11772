"""A client that does not wait for a model is told when to come again, and takes the model's servers from nobody else."""

import httpx
import pytest

from lingbi.launch.supervision import wait_until
from tests.client import CHAT
from tests.gateway.conftest import running_gateway
from tests.gateway.test_model_routing import router_of


def ask(gateway, number: int, prefer: str = "") -> httpx.Response:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    body = {"model": "a", "messages": [*messages, {"role": "user", "content": str(number)}]}
    return httpx.post(gateway.url + CHAT, json=body, headers={"Prefer": prefer} if prefer else {}, timeout=30)


@pytest.mark.parametrize(
    ("form", "settings"),
    [
        ("{}", {"AFFINITY": "off"}),
        ("{}", {}),
        ("a={}", {"AFFINITY": "off", "ALIASES": "b=a"}),
        ("a={}", {"ALIASES": "b=a"}),
    ],
    ids=["least connections", "affinity", "models", "models and affinity"],
)
@pytest.mark.parametrize("prefer", ["respond-async", "wait=2", "return=minimal, wait = 5"])
def test_who_does_not_wait_hears_when_to_come_again_and_others_are_answered(upstreams, form, settings, prefer):
    servers = upstreams(2)
    for server in servers:
        server.behaviour = "asleep"
    with running_gateway([form.format(server.address) for server in servers], **settings) as gateway:
        assert settings == {"AFFINITY": "off"} or wait_until(lambda: router_of(gateway), 10)
        first = ask(gateway, 0)
        for number in range(1, 5):
            refused, answer = ask(gateway, number, prefer), ask(gateway, number)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "7")
            assert answer.status_code == 200, answer.text
            assert "AFFINITY" in settings or answer.json() == first.json()  # its server is not left out
        assert len([seen for server in servers for seen in server.seen if "prefer" in seen["headers"]]) == 4


def test_who_does_not_wait_is_answered_by_another_server_where_the_first_is_gone(upstreams):
    gone, server = upstreams(2)
    gone.stop()
    with running_gateway([gone.address, server.address]) as gateway:
        assert [ask(gateway, number, "respond-async").status_code for number in range(4)] == [200] * 4
