"""Pictures by URL at a running server: judged by content, and slow hosts hold nobody else up."""

import concurrent.futures
import time

import pytest

from lingbi.images.scenes import draw
from lingbi.smoke.checks import turn
from tests.client import CHAT, QUESTION, SCENES, body, fault, http, metric, question
from tests.conftest import running_worker
from tests.server.images.bad_images import file_of
from tests.server.images.image_hosts import folder_of, host, redirect, silent

FETCH_TIMEOUT_S = 12
MANY = 48  # more than may fetch at once, and than may hold decoded pictures


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    options = {"LINGBI_PICTURE_NETWORKS": "127.0.0.0/8", "LINGBI_PICTURE_FETCH_TIMEOUT_S": str(FETCH_TIMEOUT_S)}
    with running_worker(tmp_path_factory.mktemp("urls") / "state", **options) as server:
        yield server


def test_images_are_fetched_and_answered_by_content(worker):
    files = {f"/{number}.png": file_of(draw(SCENES[number])) for number in range(4)}
    with folder_of(files) as url, http(worker) as client:
        for number in range(4):
            asked = body(worker, [turn(QUESTION, f"{url}/{number}.png")])
            assert fault(SCENES[number], client.post(CHAT, json=asked)) is None
            streamed = client.post(CHAT, json=asked | {"stream": True})
            assert streamed.status_code == 200 and streamed.text.endswith("data: [DONE]\n\n")
        missing = client.post(CHAT, json=body(worker, [turn(QUESTION, f"{url}/none.png")]))
        assert (missing.status_code, missing.json()["error"]["code"]) == (400, "invalid_image")
        assert "404" in missing.json()["error"]["message"]


def test_a_redirect_is_followed_outside_and_refused_inside(worker):
    with (
        http(worker) as client,
        folder_of({"/a.png": file_of(draw(SCENES[7]))}) as url,
        host(redirect(f"{url}/a.png")) as good,
        host(redirect("http://10.0.0.1/a.png")) as inward,
    ):
        assert fault(SCENES[7], client.post(CHAT, json=body(worker, [turn(QUESTION, good)]))) is None
        refused = client.post(CHAT, json=body(worker, [turn(QUESTION, inward)]))
    assert refused.status_code == 400 and "not on the public internet" in refused.json()["error"]["message"]


def test_slow_hosts_hold_nobody_else_up(worker):
    """Requests that wait for their hosts; one that brings its picture is answered at once."""
    with host(silent) as url, http(worker) as client, concurrent.futures.ThreadPoolExecutor(MANY) as pool:
        slow = body(worker, [turn(QUESTION, url)])
        start = time.monotonic()
        waiting = [pool.submit(client.post, CHAT, json=slow) for _ in range(MANY)]
        while metric(worker, "lingbi_requests_inside") < MANY:
            assert time.monotonic() - start < FETCH_TIMEOUT_S / 2
        assert fault(SCENES[3], client.post(CHAT, json=question(worker, SCENES[3]))) is None
        assert time.monotonic() - start < FETCH_TIMEOUT_S and not any(job.done() for job in waiting)
        assert {job.result().status_code for job in waiting} == {400}
