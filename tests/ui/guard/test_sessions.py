"""A login's sessions end: with the login, with its password, at logout, after a time."""

import httpx
import pytest

from lingbi.launch.supervision import wait_until
from lingbi_ui.guard.sessions import MAX_SESSIONS, Sessions
from lingbi_ui.logins import Logins, change
from lingbi_ui.words import WORDS
from tests.ui.conftest import ASKED, OPTIONS, running_page
from tests.ui.guard.test_uploads import ENDING, files_in, upload_under_way


@pytest.fixture
def file(tmp_path):
    for name in ("alice", "bob"):
        change(tmp_path / "logins", "add", name)
    return tmp_path / "logins"


@pytest.fixture
def now():
    return [0.0]


@pytest.fixture
def sessions(file, now):
    found = Sessions(Logins(file), 2, lambda: now[0])
    found["a"], found["b"] = "alice", "bob"
    return found


def scope(cookie: str) -> dict:
    return {"type": "http", "headers": [(b"cookie", cookie.encode())]}


def test_the_cookie_names_the_login(sessions):
    for name in ("access-token-x", "access-token-unsecure-x"):
        assert sessions.name_in(scope(f"other=a; {name}=a")) == "alice"
    assert sessions.name_in(scope("access-token-x=c")) is None and sessions.name_in(scope("token=a")) is None
    assert sessions.name_in({"type": "http", "headers": []}) is None


def test_a_removed_login_and_a_new_password_end_them(sessions, file):
    change(file, "remove", "alice")
    assert sessions.get("a") is None and sessions.get("b") == "bob" and list(sessions) == ["b"]
    change(file, "add", "alice")
    assert sessions.get("a") is None
    sessions["c"] = "alice"
    change(file, "remove", "alice")
    change(file, "add", "alice")
    assert sessions.get("c") is None, "the name is known, the password is another"


def test_a_file_that_cannot_be_read_lets_nobody_in(sessions, file):
    file.unlink()
    assert sessions.get("b") is None
    sessions["c"] = "bob"
    assert list(sessions) == []


def test_they_end_after_their_hours(sessions, now):
    now[0] = 2 * 3600 - 1
    assert sessions.get("a") == "alice"
    now[0] = 2 * 3600
    assert sessions.get("a") is None and list(sessions) == []


def test_a_login_has_a_bounded_number(sessions):
    for number in range(MAX_SESSIONS + 5):
        sessions[str(number)] = "alice"
    assert len([token for token in sessions if sessions[token] == "alice"]) == MAX_SESSIONS
    assert sessions.get("b") == "bob" and sessions.get("4") is None and sessions.get("5") == "alice"


PROTECTED = (
    ("GET", "/state"),
    ("GET", "/config"),
    ("GET", "/gradio_api/app_id"),
    ("GET", "/gradio_api/file=/etc/passwd"),
    ("GET", "/gradio_api/queue/data?session_hash=a"),
    ("GET", "/gradio_api/upload_progress?upload_id=a"),
    ("POST", "/gradio_api/queue/join"),
    ("POST", "/gradio_api/run/predict"),
    ("POST", "/gradio_api/cancel"),
    ("POST", "/gradio_api/reset"),
    ("POST", "/gradio_api/upload"),
)


@pytest.fixture
def page(fake_api, tmp_path):
    passwords = {name: change(tmp_path / "logins", "add", name) for name in ("alice", "bob")}
    with running_page(tmp_path, fake_api.url, LOGIN_FILE=tmp_path / "logins") as found:
        found.passwords, found.logins = passwords, tmp_path / "logins"
        yield found


def come_in(page, name: str) -> httpx.Client:
    client = httpx.Client(base_url=page.url, timeout=30)
    answer = client.post("/login", data={"username": name, "password": page.passwords[name]})
    assert answer.status_code == 200
    return client


def statuses(client) -> set:
    return {client.request(method, path).status_code for method, path in PROTECTED}


def test_every_route_needs_the_login_at_every_request(page, fake_api):
    stranger = httpx.Client(base_url=page.url)
    assert statuses(stranger) == {401}
    sentence = stranger.get("/state", headers={"Accept-Language": "zh-CN"}).json()["detail"]
    assert sentence == WORDS["page_refused"][1]
    alice, again, bob = come_in(page, "alice"), come_in(page, "alice"), come_in(page, "bob")
    assert 401 not in statuses(alice) | statuses(bob)
    assert again.get("/logout").status_code == 302
    assert statuses(alice) == statuses(again) == {401}, "a logout ends all sessions of that login"
    page.passwords["alice"] = _new_password(page, "alice")
    alice = come_in(page, "alice")
    assert 401 not in statuses(alice)
    change(page.logins, "remove", "alice")
    assert statuses(alice) == {401} and 401 not in statuses(bob)


def _new_password(page, name: str) -> str:
    change(page.logins, "remove", name)
    return change(page.logins, "add", name)


def test_a_running_answer_ends_with_its_login(page, fake_api):
    page.client = come_in(page, "alice")
    fake_api.words = ["word "] * 2_000_000
    body = {"fn_index": page.numbers()["retry"], "data": [ASKED, *OPTIONS], "session_hash": "running"}
    assert page.client.post("/gradio_api/queue/join", json=body).status_code == 200
    with page.client.stream("GET", "/gradio_api/queue/data?session_hash=running") as answer:
        lines = answer.iter_lines()
        assert any("process_generating" in line for line in lines)
        change(page.logins, "remove", "alice")
        for _ in lines:  # ends; the client's own time-out bounds it
            pass
    bob = come_in(page, "bob")
    assert bob.get("/gradio_api/queue/data?session_hash=running").text.count("session_not_found") == 1


def test_an_upload_ends_with_its_login_and_leaves_nothing(page):
    """Refused with what comes of it next, though that would have been the end of it; and so do the streams of its progress."""
    client = come_in(page, "alice")
    cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    before = files_in(page)
    with (
        upload_under_way(page, "hers", "10.0.0.1", cookie) as connection,
        client.stream("GET", "/gradio_api/upload_progress?upload_id=hers") as told,
    ):
        lines = told.iter_lines()
        assert "update" in next(lines)
        change(page.logins, "remove", "alice")
        for line in lines:  # ends; the client's own time-out bounds it
            assert "done" not in line
        assert len(files_in(page)) > len(before), "the upload has not ended by itself"
        connection.sendall(ENDING)
        assert b" 401 " in connection.recv(4096)
        assert wait_until(lambda: files_in(page) == before, 10)


def test_a_session_is_its_logins_alone(page, fake_api):
    alice, bob = come_in(page, "alice"), come_in(page, "bob")
    page.client = alice
    fake_api.words = ["word "] * 2_000_000
    number = page.numbers()["retry"]
    body = {"fn_index": number, "data": [ASKED, *OPTIONS], "session_hash": "hers"}
    event = alice.post("/gradio_api/queue/join", json=body).json()["event_id"]
    assert bob.post("/gradio_api/queue/join", json=body).status_code == 429
    assert "session_not_found" in bob.get("/gradio_api/queue/data?session_hash=hers").text
    cancel = {"session_hash": "hers", "event_id": event, "fn_index": number}
    bob.post("/gradio_api/cancel", json=cancel)
    with alice.stream("GET", "/gradio_api/queue/data?session_hash=hers") as answer:
        lines = answer.iter_lines()
        assert any("process_generating" in line for line in lines), "it goes on"
        alice.post("/gradio_api/cancel", json=cancel)
        assert any("close_stream" in line for line in lines)
