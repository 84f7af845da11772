"""What the gateway refuses, how it says so, and what it tells of itself."""

import asyncio
import contextlib
import functools
import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from lingbi.api_errors import BodyTooLarge
from lingbi.launch.supervision import wait_until
from tests.client import CHAT
from tests.gateway.conftest import running_gateway

KEY = "lb-secret-of-this-test"
MIB = 1 << 20
UPLOAD, SUBMIT = "/gradio_api/upload", "/batches/submit"


@pytest.fixture
def gateway(upstreams):
    (server,) = upstreams(1)
    with running_gateway([server.address], UI=server.address) as found:
        found.server = server
        yield found


def raw(gateway, request: bytes, timeout_s: float = 15) -> bytes:
    """What comes back for these bytes until the connection ends or the time is up."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=timeout_s) as client:
        client.sendall(request)
        found = b""
        with contextlib.suppress(TimeoutError):
            while part := client.recv(65536):
                found += part
                if b"\r\n\r\n" in found and b"}}" in found:
                    break
        return found


def beginning_of_answer(client: socket.socket) -> bytes:
    """The first bytes that come within the socket's own time."""
    with contextlib.suppress(TimeoutError):
        return client.recv(12)
    return b""


def error_of(answer: httpx.Response) -> dict:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    return error


def test_a_body_within_the_limit_passes_and_one_above_is_a_413(gateway):
    largest = httpx.post(gateway.url + CHAT, content=b"x" * 32 * MIB, timeout=60)
    assert largest.json()["bytes"] == 32 * MIB
    refused = httpx.post(gateway.url + CHAT, content=b"x" * 40 * MIB, timeout=60)
    assert refused.status_code == 413 and error_of(refused)["code"] == BodyTooLarge.code
    assert "32 MiB" in error_of(refused)["message"]
    page = httpx.post(gateway.url + "/", content=b"x" * 33 * MIB, timeout=60)
    assert page.status_code == 413 and "图片" in page.text and "MiB" in page.text


def test_all_images_of_a_question_may_be_uploaded_at_once(upstreams):
    (server,) = upstreams(1)
    with running_gateway([server.address], UI=server.address) as gateway:
        assert httpx.post(gateway.url + UPLOAD, content=b"x" * 40 * MIB, timeout=60).json()["bytes"] == 40 * MIB
    with running_gateway([server.address], UI=server.address, MAX_UPLOAD_MIB=1) as gateway:
        assert httpx.post(gateway.url + UPLOAD, content=b"x" * 2 * MIB, timeout=60).status_code == 413
    assert len(server.seen) == 1


def test_a_batchs_file_may_be_larger_than_a_request_by_every_way(upstreams):
    (server,) = upstreams(1)
    with running_gateway([server.address], UI=server.address, MAX_BODY_MIB=1, MAX_FILE_MIB=3) as gateway:
        for url in (f"{gateway.url}/v1/files", f"{gateway.url}{SUBMIT}", f"{gateway.inner_url}/v1/files"):
            assert httpx.post(url, content=b"x" * 2 * MIB, timeout=60).json()["bytes"] == 2 * MIB, url
            assert httpx.post(url, content=b"x" * 4 * MIB, timeout=60).status_code == 413, url
        assert httpx.post(f"{gateway.url}/batches/cancel", content=b"x" * 2 * MIB, timeout=60).status_code == 413


@pytest.mark.parametrize("path", ["/gradio_api/queue/join", UPLOAD, SUBMIT])
def test_questions_and_uploads_to_the_page_have_the_addresss_rate(upstreams, path):
    (server,) = upstreams(1)
    with running_gateway([server.address], UI=server.address, ADDRESS_RATE=5) as gateway, httpx.Client() as client:
        found = [client.post(gateway.url + path, content=b"{}").status_code for _ in range(50)]
        assert found.count(429) > 10 and found[:10] == [200] * 10
        assert client.get(gateway.url + "/theme.css").status_code == 200


@pytest.mark.parametrize("path", ["/login", "/login/", "/login/?a=1", "/log%69n/"])
def test_logins_are_one_a_second_however_spelt(gateway, path):
    with httpx.Client() as client:
        found = [client.post(gateway.url + path, content=b"").status_code for _ in range(25)]
    assert found[:10] == [200] * 10 and found.count(429) >= 10, found


@pytest.mark.parametrize("other", ["bearer {}", "BEARER   {}", "Bearer \t{}"])
def test_a_key_is_the_same_however_it_is_written(upstreams, other):
    (server,) = upstreams(1)
    with running_gateway([server.address], KEY_RATE=5) as gateway, httpx.Client() as client:
        url = gateway.url + "/v1/models"
        found = [client.get(url, headers={"Authorization": f"Bearer {KEY}"}).status_code for _ in range(40)]
        assert 429 in found
        raw_header = other.format(KEY)
        answers = [client.get(url, headers={"Authorization": raw_header}).status_code for _ in range(4)]
        assert 429 in answers, answers
        long = [client.get(url, headers={"Authorization": f"Bearer {'k' * 200}{n}"}).status_code for n in range(40)]
        assert 429 in long  # counted by its beginning, so that no key is too long to be counted


def test_what_a_browser_speaks_is_believed_of_trusted_proxies_only(upstreams):
    (server,) = upstreams(1)
    sent = {"X-Forwarded-Proto": "https"}
    for settings, passed in (({}, "http"), ({"TRUSTED_PROXIES": "127.0.0.1"}, "https")):
        with running_gateway([server.address], UI=server.address, **settings) as gateway:
            httpx.get(gateway.url, headers=sent)
            assert server.seen[-1]["headers"]["x-forwarded-proto"] == passed
            httpx.get(gateway.url, headers={"X-Forwarded-Proto": "gopher"})
            assert server.seen[-1]["headers"]["x-forwarded-proto"] == "http"


def test_405_and_414_have_the_apis_form(gateway):
    refused = raw(gateway, b"TRACE /v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert refused.startswith(b"HTTP/1.1 405 ") and b'"method_not_allowed"' in refused
    assert "does not accept this method" in refused.decode()
    long = raw(gateway, b"GET /v1/" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert long.startswith(b"HTTP/1.1 414 ") and b'"uri_too_long"' in long and b"application/json" in long
    assert gateway.server.seen == []


def test_no_query_stands_in_any_log(upstreams):
    """nginx's own log of errors would hold the first line of each request that failed."""
    (server,) = upstreams(1)
    with running_gateway([server.address, "127.0.0.1:9"], UI="127.0.0.1:9", ADDRESS_RATE=2) as gateway:
        with httpx.Client() as client:
            found = {client.get(f"{gateway.url}/v1/models?api_key={KEY}").status_code for _ in range(40)}
            assert client.get(f"{gateway.url}/x?api_key={KEY}").status_code == 503
        assert 429 in found and KEY not in gateway.log()


def test_the_status_is_on_the_inner_port_too(gateway):
    answer = httpx.get(gateway.inner_url + "/status")
    assert answer.status_code == 200 and "Active connections" in answer.text
    assert httpx.get(gateway.inner_url + "/metrics").status_code == 404


def test_slow_bodies_are_bounded_by_requests_at_once(upstreams):
    """nginx bounds the pauses within a body, not the whole: so many an address, and others are answered."""
    (server,) = upstreams(1)
    with (
        running_gateway([server.address], ADDRESS_CONNECTIONS=5, TRUSTED_PROXIES="127.0.0.1") as gateway,
        contextlib.ExitStack() as clients,
    ):
        head = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.1\r\nContent-Length: 1000\r\n\r\nx"

        def begin() -> socket.socket:
            client = clients.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=1))
            client.sendall(head.encode())
            return client

        for _ in range(5):
            begin()
        # nginx takes them in any order: the one that is refused may be one of these five.
        assert wait_until(lambda: beginning_of_answer(begin()) == b"HTTP/1.1 429", 10)
        others = {"X-Forwarded-For": "10.0.0.2"}
        assert httpx.post(gateway.url + CHAT, content=b"{}", headers=others).status_code == 200
    assert len(server.seen) == 1


@pytest.mark.parametrize("limit", ["KEY_RATE", "ADDRESS_RATE"])
def test_rates_are_limited(upstreams, limit):
    (server,) = upstreams(1)
    with running_gateway([server.address], **{limit: 5}) as gateway, httpx.Client() as client:
        key = {"Authorization": f"Bearer {KEY}"}
        found = [client.get(gateway.url + "/v1/models", headers=key) for _ in range(60)]
        refused = [answer for answer in found if answer.status_code == 429]
        assert len(refused) > 20 and error_of(refused[0])["code"] == "rate_limited"
        assert refused[0].headers["retry-after"] == "2"
        assert f"LINGBI_GATEWAY_{limit}" in refused[0].text and " 5 " in refused[0].text
        other = client.get(gateway.url + "/v1/models", headers={"Authorization": "Bearer other"})
        assert other.status_code == (200 if limit == "KEY_RATE" else 429)
        assert client.get(gateway.inner_url + "/v1/models", headers=key).status_code == 200


def test_as_many_as_a_server_runs_and_queues_come_through_at_once(upstreams):
    """128 answers and 64 that wait are what a server takes (lingbi's own defaults); limits are for floods."""
    (server,) = upstreams(1)
    headers = {"Authorization": f"Bearer {KEY}"}

    async def ask_all(url: str) -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=None)  # all on the way together: a rate cannot fill up again between them
        async with httpx.AsyncClient(limits=limits, headers=headers, timeout=60) as client:
            return await asyncio.gather(*(client.post(url + CHAT, content=b"{}") for _ in range(192)))

    with running_gateway([server.address]) as gateway:
        assert {answer.status_code for answer in asyncio.run(ask_all(gateway.url))} == {200}


def test_the_official_clients_own_retries_succeed_where_a_flood_is_refused(upstreams):
    """260 questions at once are more than the limits let through; each is answered in the end, by the client's defaults."""
    (server,) = upstreams(1)

    async def ask_all(url: str) -> list:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY) as client:
            chat = functools.partial(client.chat.completions.create, model="m", messages=[])
            return await asyncio.gather(*(chat() for _ in range(260)))

    with running_gateway([server.address]) as gateway:
        answers = asyncio.run(ask_all(gateway.url))
        statuses = [line["status"] for line in gateway.requests(CHAT, 261)]
    assert len(answers) == statuses.count("200") == 260 and "429" in statuses


def test_limits_grow_with_the_servers(upstreams):
    servers = [server.address for server in upstreams(3)]
    for addresses in (servers[:1], servers):
        with running_gateway(addresses, KEY_RATE=7, KEY_CONNECTIONS=5) as gateway:
            text = (gateway.folder / "nginx.conf").read_text()
            count = len(addresses)
            assert f"zone=key_rate:4m rate={7 * count}r/s;" in text and f"burst={28 * count} nodelay" in text
            assert f"limit_conn key_connections {5 * count};" in text


@pytest.mark.parametrize("limit", ["KEY_CONNECTIONS", "ADDRESS_CONNECTIONS"])
def test_requests_at_once_are_limited(upstreams, limit):
    (server,) = upstreams(1)
    server.behaviour = "stream"
    headers = {"Authorization": f"Bearer {KEY}"}
    with running_gateway([server.address], **{limit: 3}) as gateway, contextlib.ExitStack() as streams:
        for _ in range(3):
            answer = streams.enter_context(httpx.stream("POST", gateway.url + CHAT, content=b"{}", headers=headers))
            assert answer.status_code == 200
        assert httpx.post(gateway.url + CHAT, content=b"{}", headers=headers).status_code == 429
        other = {"Authorization": "Bearer other"}
        server.behaviour = "answer"
        status = httpx.post(gateway.url + CHAT, content=b"{}", headers=other).status_code
        assert status == (200 if limit == "KEY_CONNECTIONS" else 429)


def test_what_it_tells_and_what_not(gateway):
    answer = httpx.get(gateway.url + "/v1/models", headers={"X-Request-ID": "mine-1", "Authorization": f"Bearer {KEY}"})
    assert answer.headers["x-request-id"] == "mine-1" and gateway.server.seen[-1]["headers"]["x-request-id"] == "mine-1"
    assert gateway.server.seen[-1]["headers"]["authorization"] == f"Bearer {KEY}"
    assert answer.headers["server"] == "nginx" and not re.search(r"\d\.\d", answer.headers["server"])
    for name in ("x-content-type-options", "x-frame-options", "referrer-policy", "content-security-policy"):
        assert name in answer.headers
    made = httpx.get(gateway.url + "/v1/models", headers={"X-Request-ID": "no good\tid"}).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", made)
    httpx.get(gateway.url + f"/v1/models?api_key={KEY}")
    lines = gateway.requests("/v1/models", 3)
    assert {line["id"] for line in lines} >= {"mine-1", made} and lines[-1]["status"] == "200"
    assert KEY not in gateway.log()


def test_metrics_and_status_are_for_allowed_addresses(upstreams):
    (server,) = upstreams(1)
    with running_gateway([server.address]) as gateway:
        assert httpx.get(gateway.url + "/metrics").status_code == 200
        assert "Active connections" in httpx.get(gateway.url + "/status").text
    with running_gateway([server.address], ALLOW="10.0.0.0/8", TRUSTED_PROXIES="127.0.0.1") as gateway:
        for path in ("/metrics", "/status"):
            refused = httpx.get(gateway.url + path)
            assert refused.status_code == 403 and error_of(refused)["code"] == "forbidden"
            assert httpx.get(gateway.url + path, headers={"X-Forwarded-For": "10.1.1.1"}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/..%2f", "/v1/%2e%2e/metrics", "/v1/../metrics", "/v1/..%5cx", "/v1/..", "/a/%2Fb"),
        *("/v1/%2e./metrics", "/v1/.%2E/metrics", "/v1/.%2e", "/v1/%2e.?x", "/v1/./models", "/v1/%2e/models"),
    ],
)
def test_path_tricks_reach_nobody(gateway, path):
    answer = raw(gateway, f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 400 "), answer[:100]
    assert gateway.server.seen == []


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1//models", "two slashes in a row"),
        ("//v1/models?a//b", "two slashes in a row"),
        ("/chat/completions", "The API is under /v1"),
        ("/models/x", "The API is under /v1"),
    ],
)
def test_a_base_url_that_is_a_little_wrong_is_told_so(gateway, path, words):
    answer = raw(gateway, f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()).decode()
    error = json.loads(answer.partition("\r\n\r\n")[2])["error"]
    assert answer.startswith("HTTP/1.1 404 ") and words in error["message"] and error["code"] == "not_found"
    assert gateway.server.seen == []


SMUGGLED = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello" + SMUGGLED, 400),
        (b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 501),
        (b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
        (b"Content-Length: -5\r\n\r\n" + SMUGGLED, 400),
    ],
)
def test_smuggled_requests_reach_nobody(gateway, headers, status):
    answer = raw(gateway, b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n" + headers)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:100]
    assert answer.count(b"HTTP/1.1 ") == 1 and gateway.server.seen == []


def test_headers_of_10_000_bytes_are_refused(gateway):
    request = b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX-Long: " + b"a" * 10_000 + b"\r\n\r\n"
    answer = raw(gateway, request)
    assert answer.startswith(b"HTTP/1.1 431 ") and b"headers_too_large" in answer
    assert gateway.server.seen == []


def test_slow_headers_are_cut_off_and_hold_nobody_up(gateway):
    clients = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(100)]
    for client in clients:
        client.sendall(b"GET /v1/models HTTP/1.1\r\nHost: a\r\n")
    began, open_clients = time.monotonic(), set(clients)
    while open_clients and time.monotonic() - began < 30:
        for client in list(open_clients):
            try:
                client.sendall(b"X: a\r\n")
                client.setblocking(False)
                if client.recv(100) == b"":
                    open_clients.discard(client)
            except BlockingIOError:
                client.setblocking(True)
            except OSError:
                open_clients.discard(client)
        assert httpx.get(gateway.url + "/v1/models", timeout=5).status_code == 200
        time.sleep(1)
    assert not open_clients and time.monotonic() - began < 20


def test_many_requests_at_once(gateway):
    with httpx.Client() as client, ThreadPoolExecutor(32) as pool:
        found = list(pool.map(lambda _: client.get(gateway.inner_url + "/v1/models").status_code, range(200)))
    assert set(found) == {200}
