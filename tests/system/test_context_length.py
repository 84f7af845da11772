"""Prompts that the session has no room for, on each route."""

import pytest

from tests.client import http


@pytest.mark.parametrize(
    ("route", "field"), [("chat/completions", "messages"), ("completions", "prompt"), ("responses", "input")]
)
def test_a_prompt_over_the_session_is_refused_by_the_name_of_its_own_field(demo_server, route, field):
    with http(demo_server) as client:
        for text in ("hello " * 5000, "x" * 1_000_000):
            for stream in (False, True):
                request = {"model": demo_server["model"], field: text, "stream": stream}
                response = client.post(f"/v1/{route}", json=request)
                error = response.json()["error"]
                assert (response.status_code, error["param"]) == (400, field), error
                assert error["code"] == "context_length_exceeded"
