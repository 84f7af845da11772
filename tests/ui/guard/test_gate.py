"""Visitors who send too much, too large or too often: they are refused, and the page's memory and the others do not notice."""

import time

import httpx
import pytest

from lingbi.launch.supervision import wait_until
from lingbi_ui.words import WORDS
from tests.ui.conftest import ASKED, OPTIONS, running_page

JOIN, PREDICT, DATA = "/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/queue/data"
MIB = 1 << 20


@pytest.fixture(scope="module")
def small(fake_api, tmp_path_factory):
    """A page for six questions of one address, and ten in all."""
    settings = {"ADDRESS_QUESTIONS": 6, "ALL_QUESTIONS": 10}
    with running_page(tmp_path_factory.mktemp("small"), fake_api.url, **settings) as found:
        yield found


def question(page, name: str, data=None, event: str = "retry") -> dict:
    return {"fn_index": page.numbers()[event], "data": data or [ASKED, *OPTIONS], "session_hash": name}


def join(page, name: str, visitor: str, language: str = "en", **changes) -> httpx.Response:
    headers = {"X-Forwarded-For": visitor, "Accept-Language": language}
    return page.client.post(JOIN, json=question(page, name) | changes, headers=headers)


def heard(page, name: str, visitor: str) -> str:
    return page.client.get(f"{DATA}?session_hash={name}", headers={"X-Forwarded-For": visitor}).text


def test_questions_that_nobody_reads_are_bounded_and_end(small, fake_api):
    statuses = [join(small, f"a{number}", "10.0.0.1").status_code for number in range(8)]
    assert statuses == [200] * 6 + [429] * 2
    for language, place in (("en", 0), ("zh-CN", 1)):
        refused = join(small, "a9", "10.0.0.1", language)
        assert refused.json()["detail"] == WORDS["page_busy"][place] and refused.headers["retry-after"]
    statuses = [join(small, f"b{number}", "10.0.0.2").status_code for number in range(6)]
    assert statuses == [200] * 4 + [429] * 2, "ten are the room of all"
    assert "an answer" in heard(small, "a0", "10.0.0.1")
    assert join(small, "a10", "10.0.0.1").status_code == 200, "what was read makes room"
    assert wait_until(lambda: "session_not_found" in heard(small, "b1", "10.0.0.9"), 5)
    assert wait_until(lambda: join(small, "c1", "10.0.0.3").status_code == 200, 30), "the unread end by themselves"
    heard(small, "c1", "10.0.0.3")


def test_an_unread_answer_is_ended_in_the_engine(small, fake_api):
    fake_api.words = ["word "] * 10_000_000
    assert wait_until(lambda: join(small, "unread", "10.0.0.4").status_code == 200, 30)
    assert wait_until(lambda: len(_engines(small, fake_api)) == 1, 10)
    assert wait_until(lambda: not _engines(small, fake_api), 40)


def _engines(page, api) -> list:
    """Connections that stream an answer; a kept one that is idle closes after a few seconds."""
    port = api.server.server_port
    return [one for one in page.process.connections() if one.raddr and one.raddr.port == port]


def test_bodies_are_small_and_refused_before_they_are_read(small):
    for path, size in ((JOIN, MIB + 1), (PREDICT, MIB + 1), ("/gradio_api/cancel", 1025), ("/login", 5000)):
        found = {small.client.post(path, content=content(size)).status_code for content in (_told, _untold)}
        assert found == {413}, path


def _told(size: int) -> bytes:
    return b"x" * size


def _untold(size: int):
    """Chunks, so that no header says how large it is."""
    yield b"x" * size


def test_long_and_deep_histories_do_not_reach_gradio(small):
    turns = [{"role": "user", "content": [{"type": "text", "text": "x"}]}] * 401
    deep = []
    for _ in range(500):
        deep = [deep]
    for data in ([turns, *OPTIONS], [deep, *OPTIONS]):
        assert join(small, "long", "10.0.0.5", data=data).status_code == 413
    assert join(small, "bad", "10.0.0.5", fn_index=999).status_code == 400
    assert small.client.post(JOIN, content=b'{"data": [' * 50_000).status_code in (400, 413)


def test_only_buttons_pass_the_queue(small, fake_api):
    """And what they send along is not looked at."""
    numbers = {}
    for item in small.client.get("/config").json()["dependencies"]:
        body = {"fn_index": item["id"], "data": [ASKED] * 8, "session_hash": "x"}
        numbers[item["id"]] = small.client.post(PREDICT, json=body).status_code
    queued = {item["id"] for item in small.client.get("/config").json()["dependencies"] if item["queue"] is not False}
    assert len(queued) >= 6 and {numbers[number] for number in queued} == {400}
    assert 200 in numbers.values() and set(numbers.values()) == {200, 400} and fake_api.asked == []


def test_methods_and_websockets_that_the_page_does_not_use(small):
    for method, path in (("PUT", "/"), ("DELETE", "/config"), ("GET", JOIN), ("POST", "/state"), ("TRACE", "/")):
        assert small.client.request(method, path).status_code == 405, (method, path)


def test_requests_have_a_rate(small):
    """Of one visitor; another one is answered meanwhile."""
    headers = {"X-Forwarded-For": "10.0.0.6"}
    body = {"session_hash": "x", "event_id": "y", "fn_index": 1}
    found = [small.client.post("/gradio_api/cancel", json=body, headers=headers).status_code for _ in range(120)]
    assert found[:50] == [200] * 50 and found[-1] == 429
    assert small.client.post("/gradio_api/cancel", json=body, headers={"X-Forwarded-For": "10.0.0.7"}).is_success


def test_memory_stays_where_it_was(fake_api, tmp_path):
    """Three hundred of the largest questions, of five addresses, none of which is ever read."""
    text = "x" * (MIB - 2000)
    turns = [{"role": "user", "content": [{"type": "text", "text": text}]}]
    with running_page(tmp_path, fake_api.url) as page:
        page.send("retry", [ASKED, *OPTIONS])
        before, number = page.process.memory_info().rss, page.numbers()["retry"]
        statuses, most = [], 0
        for turn in range(300):
            body = {"fn_index": number, "data": [turns, *OPTIONS], "session_hash": f"s{turn}"}
            headers = {"X-Forwarded-For": f"10.0.0.{turn % 5}"}
            statuses.append(page.client.post(JOIN, json=body, headers=headers).status_code)
            most = max(most, page.process.memory_info().rss)
        assert set(statuses) == {200, 429} and (most - before) / MIB < 400, (most - before) / MIB
        began = time.monotonic()
        assert page.client.get("/live").is_success and time.monotonic() - began < 5
        assert wait_until(lambda: "an answer" in _asked(page), 30)


def _asked(page) -> str:
    try:
        return str(page.send("retry", [ASKED, *OPTIONS]))
    except httpx.HTTPStatusError as error:
        return str(error.response.status_code)
