"""Visitors who speak to the page's server without the page: they get no file and send it nowhere."""

import base64
import json

import pytest

from tests.ui.conftest import OPTIONS, said

SECRET = "a secret that only the page's user may read"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


def outcome(messages: list) -> dict:
    return messages[-1]


def served(page, word: bytes) -> list:
    """Files among the uploads that hold a word."""
    return [file for file in page.files.rglob("*") if file.is_file() and word in file.read_bytes()]


@pytest.fixture
def secret(tmp_path):
    file = tmp_path / "secret.png"
    file.write_text(SECRET)
    return str(file)


@pytest.mark.parametrize("event", ["retry", "edit", "submit", "example_select"])
def test_no_file_of_the_machine_is_read(page, fake_api, secret, event):
    details = {"index": 1, "value": "and?", "previous_value": "what?"}
    if event == "example_select":
        details |= {"index": 0, "value": {"text": "what?", "files": [secret]}}
    data = [said(secret), *OPTIONS]
    if event == "submit":
        file = {"path": secret, "meta": {"_type": "gradio.FileData"}}
        data = [{"text": "what?", "files": [file]}, [], *OPTIONS]
    messages = page.send(event, data, details)
    assert served(page, SECRET.encode()) == [] and SECRET not in json.dumps(messages)
    assert base64.b64encode(SECRET.encode()).decode()[:20] not in json.dumps(fake_api.asked)


def test_nor_without_the_queue(page, secret):
    """As the camera and the buttons ask."""
    file = {"path": secret, "meta": {"_type": "gradio.FileData"}}
    for number in sorted(set(page.numbers().values())):
        body = {"fn_index": number, "data": [file, {"text": "", "files": [file]}], "session_hash": "none"}
        answer = page.client.post("/gradio_api/run/predict", json=body)
        assert answer.status_code in (200, 400) and SECRET not in answer.text
    assert served(page, SECRET.encode()) == []


def test_an_example_is_the_pages_own_whatever_the_browser_says(page, fake_api, secret):
    details = {"index": 0, "value": {"text": "what?", "files": [secret]}}
    assert outcome(page.send("example_select", [[], *OPTIONS], details))["success"]
    (asked,) = fake_api.asked
    assert asked["messages"][0]["content"][1]["text"] in ("Describe the picture.", "请描述图中内容")
    for index in (99, -1, "0", None, [0, 0]):
        fake_api.asked.clear()
        page.send("example_select", [[], *OPTIONS], details | {"index": index})
        assert fake_api.asked == [], index


@pytest.mark.parametrize("path", ["/usr/../etc/passwd", "{root}/pyproject.toml"])
def test_not_even_from_the_folder_it_was_started_in(page, path, pytestconfig):
    path = path.format(root=pytestconfig.rootpath)
    assert not outcome(page.send("retry", [said(path), *OPTIONS]))["success"]
    assert page.client.get(f"/gradio_api/file={pytestconfig.rootpath}/pyproject.toml").status_code == 403


def test_nothing_is_fetched_for_a_visitor(page, fake_api):
    url = f"{fake_api.url}/elsewhere.png"
    for path, more in ((url, {}), ("x.png", {"url": url}), (url, {"url": url})):
        page.send("retry", [said(path, **more), *OPTIONS])
    page.send("submit", [{"text": "", "files": [{"path": url, "meta": {"_type": "gradio.FileData"}}]}, [], *OPTIONS])
    assert page.client.get(f"/gradio_api/file={url}").status_code == 404
    assert [seen for seen in fake_api.paths if "elsewhere" in seen] == []
    # That address is refused by Gradio itself for being this machine's; any other must be by the page.
    assert "this page fetches nothing" in page.log.read_text()


def test_what_the_page_does_not_use_is_not_there(page):
    for path in (
        "/gradio_api/runs",
        "/monitoring",
        "/gradio_api/openapi.json",
        "/gradio_api/run-history/buckets",
        "/gradio_api/info",
        "/gradio_api/login_check",
        "/gradio_api/heartbeat/x",
        "/gradio_api/startup-events",
        "/gradio_api/queue/status",
        "/docs",
    ):
        assert page.client.get(path).status_code == 404, path
    for path in (
        "/gradio_api/run/ask",
        "/gradio_api/process_recording",
        "/gradio_api/vibe-edit",
        "/gradio_api/api/ask",
    ):
        assert page.client.post(path, json={"data": []}).status_code == 404, path
    for path in ("/", "/config", "/theme.css", "/live", "/state", "/gradio_api/app_id"):
        assert page.client.get(path).status_code == 200, path


def test_a_drawing_with_a_script_is_not_taken_and_never_shown(page):
    assert page.client.post("/gradio_api/upload", files={"files": ("x.svg", SVG)}).status_code == 415
    assert served(page, SVG) == []
    (page.files / "left").mkdir(exist_ok=True)
    (page.files / "left/x.svg").write_bytes(SVG)  # as an earlier version took them
    answer = page.client.get(f"/gradio_api/file={page.files}/left/x.svg")
    assert (
        answer.headers["content-disposition"].startswith("attachment") and "svg" not in answer.headers["content-type"]
    )


def test_an_uploaded_image_is_used(page, fake_api, image):
    path = page.upload("red.png", image("PNG").read_bytes())
    assert outcome(page.send("retry", [said(path), *OPTIONS]))["success"]
    (asked,) = fake_api.asked
    assert asked["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert page.client.get(f"/gradio_api/file={path}").status_code == 200


def test_health_tells_no_address_and_does_not_ask_each_time(page, fake_api):
    fake_api.paths.clear()
    answers = [page.client.get("/health") for _ in range(10)]
    assert {answer.text for answer in answers} == {'{"status":"ok"}'}
    assert len([path for path in fake_api.paths if path == "/v1/models"]) <= 1


def test_health_of_a_page_without_a_server(lonely_page):
    answer = lonely_page.client.get("/health")
    assert answer.status_code == 503 and answer.json() == {"status": "unavailable"}
    assert str(lonely_page.api_port) in lonely_page.log.read_text()
