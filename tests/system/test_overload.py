"""A worker with little room: what does not fit is refused, with the time to come back."""

import concurrent.futures
import contextlib
import time

import httpx
import pytest

from lingbi.launch.supervision import wait_until
from tests.client import CHAT, SCENES, fault, http, is_let_in, metric, question
from tests.conftest import lingbi, running_worker
from tests.keys import add_to_file

ENDLESS = {"max_tokens": 3000, "ignore_eos": True, "stream": True}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    state_dir = tmp_path_factory.mktemp("small") / "state"
    options = {
        "LINGBI_CPU_SEQUENCES": "1",
        "LINGBI_QUEUE_LIMIT": "1",
        "LINGBI_MAX_BODY_MIB": "1",
        "LINGBI_BODY_TIMEOUT_S": "2",
    }
    with running_worker(state_dir, **options) as server:
        yield server | {"state_dir": state_dir}


@contextlib.contextmanager
def endless_answer(server: dict):
    """An answer that runs as long as the block does."""
    with http(server) as client, client.stream("POST", CHAT, json=question(server, SCENES[0], **ENDLESS)) as response:
        assert response.status_code == 200
        lines = response.iter_lines()  # kept: an iterator that goes away closes its response
        next(lines)
        yield lines


def test_one_runs_one_waits_and_the_third_is_told_when_to_come_back(small):
    with concurrent.futures.ThreadPoolExecutor(1) as pool, http(small) as client:
        with endless_answer(small):
            second = pool.submit(client.post, CHAT, json=question(small, SCENES[1]))
            assert wait_until(lambda: metric(small, "lingbi_queue_depth") == 1, 20)
            third = client.post(CHAT, json=question(small, SCENES[2]))
            assert third.status_code == 429 and third.json()["error"]["code"] == "queue_full"
            assert int(third.headers["retry-after"]) >= 1 and not second.done()
        assert fault(SCENES[1], second.result(60)) is None
        assert fault(SCENES[2], client.post(CHAT, json=question(small, SCENES[2]))) is None


def test_a_client_that_leaves_the_queue_makes_room(small):
    with endless_answer(small), http(small) as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post(CHAT, json=question(small, SCENES[1]), timeout=0.5)
        assert wait_until(lambda: metric(small, "lingbi_queue_depth") == 0, 5)
    with http(small) as client:
        assert fault(SCENES[1], client.post(CHAT, json=question(small, SCENES[1]))) is None


def test_a_new_key_with_a_limit_serves_within_seconds_and_keeps_to_it(small):
    named = small | {"key": add_to_file(small["state_dir"] / "keys", "guest", 1)}
    assert wait_until(lambda: is_let_in(named), 20)
    with http(named) as client:
        with endless_answer(named):
            refused = client.post(CHAT, json=question(small, SCENES[1]))
            assert refused.status_code == 429 and "this key" in refused.json()["error"]["message"]
        assert wait_until(lambda: fault(SCENES[1], client.post(CHAT, json=question(small, SCENES[1]))) is None, 20)


def test_a_running_worker_follows_every_change_of_a_key_within_seconds(small):
    def key(*arguments: str) -> str:
        done = lingbi("key", *arguments, state_dir=small["state_dir"])
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def is_answered(secret: str, status: int) -> bool:
        with http(small | {"key": secret}) as client:
            answer = client.post(CHAT, json=question(small, SCENES[1]) | {"max_tokens": 1})
        return answer.status_code == status

    def follows(secret: str, status: int) -> bool:
        return wait_until(lambda: is_answered(secret, status), 10)

    made = key("add", "student", "--models", "7b")
    assert follows(made, 403)
    key("limit", "student", "--models", "demo")
    assert follows(made, 200)
    fresh = key("rotate", "student", "--overlap", "0")
    assert follows(fresh, 200) and follows(made, 401)
    key("revoke", "student")
    assert follows(fresh, 401)
    with http(small | {"key": fresh}) as client:
        assert "this API key (student) has ended" in client.get("/v1/models").json()["error"]["message"]


def test_a_large_body_is_a_413_and_a_body_that_does_not_come_is_a_408(small):
    def halting():
        yield b"{"
        time.sleep(3)
        yield b"}"

    with http(small) as client:
        assert client.post(CHAT, content=b"x" * (2 << 20)).status_code == 413
        assert client.post(CHAT, content=(b"x" * 65536 for _ in range(64))).status_code == 413
        assert client.post(CHAT, content=halting()).status_code == 408
        assert fault(SCENES[1], client.post(CHAT, json=question(small, SCENES[1]))) is None
    assert metric(small, "lingbi_requests_inside") == 0
