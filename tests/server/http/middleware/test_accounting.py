"""Each request is counted under the route that it asks for, also where it is refused before it gets there."""

import pytest

from lingbi.settings import Settings
from tests.server.conftest import KEY

CHAT = "/v1/chat/completions"


def counted(client, route: str, status: int) -> float:
    begin = f'lingbi_requests_total{{route="{route}",status="{status}"}} '
    return sum(
        float(line.removeprefix(begin)) for line in client.get("/metrics").text.splitlines() if line.startswith(begin)
    )


def test_refusals_before_routing_are_counted_under_their_route(client, service):
    client.post(CHAT, json={})
    client.post(CHAT, headers=KEY, json={})
    client.get("/v1/models/gpt-4")
    client.get("/v1/nothing")
    assert [counted(client, CHAT, status) for status in (401, 503)] == [1, 1]
    assert counted(client, "/v1/models/{model}", 401) == 1
    assert counted(client, "other", 401) == 1


def test_a_full_queue_and_a_large_body_are_counted_under_their_route(ready, service):
    service.admission.limit = 0
    ready.post(CHAT, headers=KEY, json={})
    service.admission.limit = 1
    ready.post(CHAT, headers=KEY | {"Content-Length": str(service.limits.body_bytes + 1)}, content=b"{}")
    assert [counted(ready, CHAT, status) for status in (429, 413)] == [1, 1]


def test_health_answers_as_live(client):
    assert client.get("/health").json() == client.get("/live").json() == {"status": "live"}
    assert counted(client, "/health", 200) == counted(client, "/live", 200) == 1


def test_models_need_a_key_by_default(ready):
    assert ready.get("/v1/models").status_code == 401


class TestOpenModels:
    @pytest.fixture
    def settings(self):
        return Settings(open_models=True)

    def test_models_are_listed_without_a_key_and_nothing_else_is_open(self, ready):
        assert ready.get("/v1/models").json()["data"][0]["id"] == "model"
        assert ready.get("/v1/models/model", headers={"Authorization": "Bearer unknown"}).status_code == 200
        assert ready.get("/v1/models", headers=KEY).status_code == 200
        assert ready.post(CHAT, json={}).status_code == ready.get("/openapi.json").status_code == 401
