"""Pages of other origins may call the API only where a setting says so; then also their preflights and errors pass."""

import pytest
from pydantic import ValidationError

from lingbi.http.app import OPEN_ROUTES
from lingbi.settings import Settings
from tests.server.conftest import KEY

LAB, ELSEWHERE = "https://lab.example", "https://elsewhere.example"
ASKED = ("/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/responses", *OPEN_ROUTES)
ALLOW = "access-control-allow-origin"


def preflight(client, path: str, origin: str):
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    return client.options(path, headers=asked | {"Access-Control-Request-Headers": "authorization,content-type"})


def test_no_origin_is_allowed_by_default(ready):
    for path in ASKED:
        assert ALLOW not in preflight(ready, path, LAB).headers
        assert ALLOW not in ready.get(path, headers=KEY | {"Origin": LAB}).headers


class TestAllowed:
    @pytest.fixture
    def settings(self):
        return Settings(allowed_origins=f"http://localhost:5173,{LAB}")

    @pytest.mark.parametrize("path", ASKED)
    def test_a_preflight_is_answered_without_a_key_even_before_the_model_is_loaded(self, client, path):
        answer = preflight(client, path, LAB)
        assert (answer.status_code, answer.headers[ALLOW]) == (200, LAB)
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert "authorization" in answer.headers["access-control-allow-headers"]
        assert answer.headers["x-request-id"] and "access-control-allow-credentials" not in answer.headers

    def test_answers_and_errors_are_open_to_the_origin(self, ready):
        for path, headers, status in (("/v1/models", KEY, 200), ("/v1/models", {}, 401), ("/v1/none", KEY, 404)):
            answer = ready.get(path, headers=headers | {"Origin": LAB})
            assert (answer.status_code, answer.headers[ALLOW]) == (status, LAB)
            assert (
                "Origin" in answer.headers["vary"] and "Retry-After" in answer.headers["access-control-expose-headers"]
            )

    def test_what_nobody_foresaw_is_open_too(self, ready):
        question = {"model": "model", "messages": "hello"}
        answer = ready.post("/v1/chat/completions", headers=KEY | {"Origin": LAB}, json=question)
        assert (answer.status_code, answer.headers[ALLOW]) == (500, LAB)  # these tests' engine has no chat template

    def test_another_origin_is_not_allowed(self, ready):
        refused = preflight(ready, "/v1/models", ELSEWHERE)
        assert refused.status_code == 400 and ALLOW not in refused.headers
        assert ALLOW not in ready.get("/v1/models", headers=KEY | {"Origin": ELSEWHERE}).headers


class TestAll:
    @pytest.fixture
    def settings(self):
        return Settings(allowed_origins="*")

    def test_every_origin_is_allowed(self, ready):
        assert preflight(ready, "/v1/models", ELSEWHERE).status_code == 200
        assert ready.get("/v1/models", headers=KEY | {"Origin": ELSEWHERE}).headers[ALLOW] == "*"


@pytest.mark.parametrize(
    "origins",
    ["lab.example", "https://lab.example/", "https://Lab.example", "*,https://lab.example", "https://a,,", " "],
)
def test_what_no_browser_would_send_is_no_origin(origins):
    with pytest.raises(ValidationError):
        Settings(allowed_origins=origins)
