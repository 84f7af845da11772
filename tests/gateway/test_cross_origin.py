"""Pages of allowed origins reach the API through the gateway, and can read its own error answers."""

import contextlib

import httpx
import pytest

from lingbi import settings as server_settings
from lingbi_gateway import settings as gateway_settings
from tests.client import CHAT, SCENES, fault, question
from tests.conftest import free_port, running_worker
from tests.gateway.conftest import running_gateway

LAB, ELSEWHERE = "https://lab.example", "https://elsewhere.example"
ALLOW = "access-control-allow-origin"


@pytest.fixture(scope="module")
def open_worker(tmp_path_factory):
    with running_worker(tmp_path_factory.mktemp("worker"), LINGBI_ALLOWED_ORIGINS=LAB) as worker:
        yield worker


@contextlib.contextmanager
def gateway_before(server: str, **settings):
    with running_gateway([server], **{"ALLOWED_ORIGINS": LAB} | settings) as gateway:
        yield gateway


def test_a_preflight_and_a_streamed_answer_pass_with_one_header_each(open_worker):
    address = open_worker["url"].removeprefix("http://")
    key = {"Authorization": f"Bearer {open_worker['key']}", "Origin": LAB}
    asked = {"Origin": LAB, "Access-Control-Request-Method": "POST"}
    asked |= {"Access-Control-Request-Headers": "authorization,content-type"}
    with gateway_before(address) as gateway:
        for path in ("/v1/models", CHAT, "/v1/responses", "/health", "/ready"):
            preflight = httpx.options(gateway.url + path, headers=asked)
            assert (preflight.status_code, preflight.headers.get_list(ALLOW)) == (204, [LAB]), path
            of_server = httpx.options(open_worker["url"] + path, headers=asked)
            assert permissions(preflight) == permissions(of_server), path
        refused = httpx.options(gateway.url + CHAT, headers=asked | {"Origin": ELSEWHERE})
        assert refused.status_code == 400 and ALLOW not in refused.headers  # the server's own answer
        answer = httpx.post(gateway.url + CHAT, json=question(open_worker, SCENES[0]), headers=key, timeout=60)
        assert fault(SCENES[0], answer) is None and answer.headers.get_list(ALLOW) == [LAB]
        streamed = question(open_worker, SCENES[0], stream=True)
        answer = httpx.post(gateway.url + CHAT, json=streamed, headers=key, timeout=60)
        assert answer.text.endswith("data: [DONE]\n\n") and answer.headers.get_list(ALLOW) == [LAB]
        refused = httpx.get(gateway.url + "/v1/models", headers={"Origin": LAB})
        assert (refused.status_code, refused.headers.get_list(ALLOW)) == (401, [LAB])
        other = httpx.get(gateway.url + "/v1/models", headers=key | {"Origin": ELSEWHERE})
        assert other.status_code == 200 and ALLOW not in other.headers


def test_health_is_answered_by_a_server(open_worker):
    with gateway_before(open_worker["url"].removeprefix("http://")) as gateway:
        assert (
            httpx.get(gateway.url + "/health").json() == httpx.get(gateway.url + "/live").json() == {"status": "live"}
        )


def test_the_gateways_own_errors_can_be_read(upstreams):
    (server,) = upstreams(1)
    with gateway_before(server.address, MAX_BODY_MIB=1, ADDRESS_RATE=1, UI=server.address) as gateway:

        def post(body: bytes = b"{}", origin: str = LAB) -> httpx.Response:
            return httpx.post(gateway.url + CHAT, content=body, headers={"Origin": origin})

        large = post(b"x" * (2 << 20))
        flood = [answer for answer in (post() for _ in range(40)) if answer.status_code != 200]
        assert large.status_code == 413 and {answer.status_code for answer in flood} == {429}
        for error in (large, flood[0], httpx.get(gateway.url + "/v1", headers={"Origin": LAB})):
            assert error.headers.get_list(ALLOW) == [LAB] and "Origin" in error.headers["vary"]
            assert "Retry-After" in error.headers["access-control-expose-headers"]
        assert ALLOW not in post(origin=ELSEWHERE).headers
        assert ALLOW not in httpx.get(gateway.url, headers={"Origin": LAB}).headers  # the page is no API


def permissions(preflight: httpx.Response) -> dict:
    """What a browser reads in a preflight's answer."""
    names = ("allow-origin", "allow-methods", "max-age")
    found = {name: preflight.headers[f"access-control-{name}"] for name in names}
    return found | {"headers": set(preflight.headers["access-control-allow-headers"].lower().split(",")) - {""}}


def test_without_a_server_the_503_can_be_read():
    asked = {"Origin": LAB, "Access-Control-Request-Method": "POST"}
    with gateway_before(f"127.0.0.1:{free_port()}") as gateway:
        preflight = httpx.options(gateway.url + CHAT, headers=asked)  # or the browser would not ask at all
        assert (preflight.status_code, preflight.headers.get_list(ALLOW)) == (204, [LAB])
        for other in (asked | {"Origin": ELSEWHERE}, {"Origin": LAB}):
            assert httpx.options(gateway.url + CHAT, headers=other).status_code == 503
        assert "access-control-allow-methods" not in httpx.get(gateway.url + "/v1", headers=asked).headers
        answer = httpx.post(gateway.url + CHAT, content=b"{}", headers={"Origin": LAB})
        assert (answer.status_code, answer.headers.get_list(ALLOW)) == (503, [LAB])


@pytest.mark.parametrize(("allowed", "expected"), [("*", "*"), ("", None)])
def test_all_origins_or_none(allowed, expected):
    with gateway_before(f"127.0.0.1:{free_port()}", ALLOWED_ORIGINS=allowed) as gateway:
        assert httpx.get(gateway.url + "/v1", headers={"Origin": ELSEWHERE}).headers.get(ALLOW) == expected
        assert ALLOW not in httpx.get(gateway.url + "/v1").headers


def test_gateway_and_server_call_the_same_an_origin():
    assert gateway_settings.ORIGIN.pattern == server_settings.ORIGIN
    for bad in ("lab.example", "https://lab.example/", "*,https://lab.example"):
        with pytest.raises(gateway_settings.ConfigurationError, match="ALLOWED_ORIGINS"):
            gateway_settings.load_settings({"LINGBI_GATEWAY_ALLOWED_ORIGINS": bad})
