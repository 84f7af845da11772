"""The page's events before an API that says what a test wants: what it is asked, and what visitors read."""

import asyncio
import json
import statistics
import threading
import time

import httpx
import pytest

from lingbi.launch.supervision import wait_until
from lingbi_ui.api import Api
from lingbi_ui.logins import Logins, change
from lingbi_ui.settings import Settings
from tests.ui.conftest import OPTIONS, READY, running_page, said

IDLE_SHARE = 0.05  # of a core
WORDS = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}]}]
CHINESE = {"Accept-Language": "zh-CN"}


def shown(messages: list) -> str:
    """All that the page showed, as text."""
    return json.dumps(messages, ensure_ascii=False)


def box_of(messages: list) -> dict:
    """How the question box is at last."""
    boxes = [item for item in _values(messages) if isinstance(item, dict) and "submit_btn" in item]
    return {"can_ask": boxes[-1]["submit_btn"], "can_stop": boxes[-1]["stop_btn"]}


def _values(messages: list):
    for message in messages:
        output = message.get("output") or {}
        yield from output.get("data") or []


IDLE = {"can_ask": True, "can_stop": False}


def test_two_callers_at_the_start_both_get_the_state(fake_api):
    async def ask():
        api = Api(Settings(api_url=fake_api.url))
        return await asyncio.gather(*(api.state() for _ in range(4)))

    fake_api.late_s = 0.5
    fake_api.paths.clear()
    assert asyncio.run(ask()) == [READY] * 4
    assert fake_api.paths == ["/ready"]


def test_a_page_that_nobody_asks_takes_next_to_nothing_of_a_processor(page):
    page.send("retry", [WORDS, *OPTIONS])  # Gradio's queue runs from the first visit on
    before, seconds = page.process.cpu_times(), 4
    time.sleep(seconds)
    after = page.process.cpu_times()
    assert (after.user + after.system - before.user - before.system) / seconds < IDLE_SHARE


def test_a_slow_state_does_not_lose_the_models_name(page, fake_api):
    assert wait_until(lambda: page.client.get("/state").json()["phase"] == "ready", 5)
    fake_api.late_s = 4
    assert wait_until(lambda: page.client.get("/state").json()["phase"] == "away", 15)
    page.send("retry", [WORDS, *OPTIONS])
    assert fake_api.asked[-1]["model"] == READY["model"]


def test_a_server_that_was_never_seen_is_a_sentence(lonely_page):
    messages = lonely_page.send("retry", [WORDS, *OPTIONS])
    assert "cannot be reached right now" in shown(messages) and box_of(messages) == IDLE


def test_an_image_that_is_no_longer_kept_is_a_sentence(page, image):
    path = page.upload("red.png", image("PNG").read_bytes())
    for file in page.files.rglob("red.png"):
        file.unlink()
    messages = page.send("retry", [said(path), *OPTIONS])
    assert "“red.png” is no longer kept here" in shown(messages) and box_of(messages) == IDLE


def test_a_key_that_is_gone_is_a_sentence(page):
    file = page.folder / "key"
    key = file.read_text()
    file.unlink()
    try:
        messages = page.send("retry", [WORDS, *OPTIONS])
    finally:
        file.write_text(key)
    assert "API key is not accepted" in shown(messages) and box_of(messages) == IDLE
    assert str(file) in page.log.read_text()


@pytest.mark.parametrize("code", ["invalid_image", "invalid_value", "context_length_exceeded"])
def test_a_refusal_is_in_the_visitors_language_alone(page, fake_api, code):
    fake_api.refusal = 400, {"error": {"code": code, "message": "the picture cannot be decoded"}}
    page.client.headers.update(CHINESE)
    try:
        messages = page.send("retry", [WORDS, *OPTIONS])
    finally:
        del page.client.headers["Accept-Language"]
    assert "⚠️" in shown(messages) and "decoded" not in shown(messages) and box_of(messages) == IDLE
    assert "the picture cannot be decoded" in page.log.read_text()  # the operator reads it


def test_an_empty_edit_asks_nothing_and_keeps_the_question(page, fake_api):
    history = [*WORDS, {"role": "assistant", "content": [{"type": "text", "text": "a cat"}]}]
    change = {"index": 0, "value": "  ", "previous_value": "What is this?"}
    messages = page.send("edit", [history, *OPTIONS], change)
    assert fake_api.asked == [] and "Type a question" in shown(messages)
    assert "What is this?" in shown(messages) and "a cat" in shown(messages) and box_of(messages) == IDLE


def test_images_that_would_be_too_many_pixels_together_are_sent_smaller(page, fake_api, image):
    data = image("JPEG", size=(4000, 3000)).read_bytes()
    parts = [said(page.upload(f"{number}.jpg", data))[0] for number in range(6)]
    messages = page.send("retry", [[*parts, *WORDS], *OPTIONS])
    assert messages[-1]["success"] and "an answer" in shown(messages)
    urls = [part["image_url"]["url"] for part in fake_api.asked[-1]["messages"][0]["content"] if "image_url" in part]
    assert len(urls) == 6


def test_nobody_waits_while_somebody_else_brings_large_images(page, image):
    data = image("PNG", size=(5000, 5000)).read_bytes()
    history = [said(page.upload(f"{number}.png", data))[0] for number in range(3)]
    asking = threading.Thread(target=page.send, args=("retry", [[*history, *WORDS], *OPTIONS]))
    with httpx.Client(base_url=page.url) as other:
        other.get("/live")
        asking.start()
        times = []
        while asking.is_alive():
            began = time.monotonic()
            other.get("/live")
            times.append(time.monotonic() - began)
    held_up = sum(seconds for seconds in times if seconds > 0.5)  # a busy machine stalls now and then
    assert len(times) > 5 and held_up < sum(times) / 2, (len(times), max(times), statistics.median(times))


@pytest.fixture
def page_with_login(fake_api, tmp_path):
    password = change(tmp_path / "logins", "add", "alice")
    with running_page(tmp_path, fake_api.url, LOGIN_FILE=tmp_path / "logins") as page:
        page.password = password
        yield page


def test_a_right_login_comes_in_and_a_wrong_one_does_not(page_with_login):
    page = page_with_login

    def login(word: str) -> int:
        return httpx.post(page.url + "/login", data={"username": "alice", "password": word}).status_code

    assert login("wrong") == 400 and login(page.password) == 200
    assert page.client.post("/gradio_api/queue/join", json={"data": []}).status_code == 401


def test_a_login_being_checked_holds_up_nobody(tmp_path):
    password = change(tmp_path / "logins", "add", "alice")

    async def check() -> int:
        """How often others had their turn meanwhile."""
        checking, turns = asyncio.ensure_future(Logins(tmp_path / "logins").admits("alice", password)), 0
        while not checking.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert await checking
        return turns

    assert asyncio.run(check()) > 5


@pytest.mark.parametrize("name", ["noext", "a.jpg_large", "photo.jfif", "photo.JPG", "图片", "x.txt"])
def test_a_picture_is_taken_by_its_content_whatever_its_name(page, fake_api, image, name):
    path = page.upload(name, image("PNG").read_bytes())
    file = {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
    messages = page.send("submit", [{"text": "what?", "files": [file]}, [], *OPTIONS])
    assert messages[-1]["success"], messages
    (asked,) = fake_api.asked
    assert asked["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(("language", "word"), [("en", "“clip.png” is a video"), ("zh-CN", "“clip.png”是视频")])
def test_a_video_is_told_as_a_video_whatever_its_name(page, language, word):
    files = {"files": ("clip.png", b"\0\0\0\x18ftypmp42" + bytes(100))}
    answer = page.client.post("/gradio_api/upload", files=files, headers={"Accept-Language": language})
    assert answer.status_code == 415 and word in answer.json()["detail"]
