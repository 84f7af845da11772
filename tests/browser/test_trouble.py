"""What goes wrong at the page ends with a sentence, and the page goes on."""

import io
import re
import subprocess

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from lingbi.scenes import Scene, Thing, draw
from lingbi.supervision import Supervisor, wait_until
from tests.browser.conftest import Visitor
from tests.conftest import ROOT, answers, clean_environment, free_port, running_stack

RED = Scene((Thing("red", "circle", size=0.5),), width=640, height=480)
HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + b"\x00" * 2000
MP4 = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + b"\x00" * 2000
GONE = re.compile("starting or being updated|cannot be reached|broke off")


def png(scene=RED) -> bytes:
    buffer = io.BytesIO()
    draw(scene).save(buffer, "PNG")
    return buffer.getvalue()


def gif() -> bytes:
    frames = [draw(RED), draw(Scene((Thing("blue", "square"),), width=640, height=480))]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


BAD_FILES = {
    "IMG_1.heic": (HEIC, "HEIC", "HEIC"),
    "broken.png": (png()[:300], "damaged", "损坏"),
    "clip.jpg": (MP4, "is a video", "是视频"),
    "moving.gif": (gif(), "animated", "动图"),
    "text.png": (b"hello", "not a picture", "不是能读取的图片"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_named_and_the_question_stays(visit, tmp_path, name):
    data, english, chinese = BAD_FILES[name]
    (tmp_path / name).write_bytes(data)
    (tmp_path / "good.png").write_bytes(png())
    for locale, word in (("en-US", english), ("zh-CN", chinese)):
        visitor = visit(locale=locale)
        visitor.ask("What colour is it?", tmp_path / name)
        expect(visitor.page.locator(".toast-body").first).to_contain_text(word)
        expect(visitor.page.locator(".toast-body").first).to_contain_text(name)
        expect(visitor.page.locator("#question textarea")).to_have_value("What colour is it?")
        visitor.shot(f"bad-file-{locale}")
        visitor.ask("What colour is it?", tmp_path / "good.png")
        visitor.sees("red|Red")


def test_40_mb_are_refused_with_a_sentence(chromium, demo_stack, tmp_path):
    (tmp_path / "huge.bmp").write_bytes(b"BM" + b"\x00" * 40 * (1 << 20))
    visitor = Visitor(chromium, demo_stack["url"]).come()
    visitor.page.set_input_files("#question input[type=file]", str(tmp_path / "huge.bmp"))
    expect(visitor.page.locator(".toast-body").first).to_contain_text(re.compile("20 ?MB|maximum|large", re.I))
    visitor.shot("huge-file")
    (tmp_path / "good.png").write_bytes(png())
    visitor.come().ask("What colour is it?", tmp_path / "good.png")
    visitor.sees("red|Red")
    visitor.leave()


def test_a_conversation_that_is_too_long_is_a_sentence(visit):
    visitor = visit()
    visitor.ask("word " * 6000)
    expect(visitor.answers.last).to_contain_text("too long for the model")
    visitor.is_idle()
    visitor.ask("hello")  # the question that was refused is not sent again
    expect(visitor.answers).to_have_count(2)
    expect(visitor.answers.last).not_to_contain_text("⚠️")


def test_the_server_goes_and_comes_back(chromium, tmp_path):
    """Its page shows it, answers with a sentence meanwhile, and works again by itself."""
    with running_stack(tmp_path / "state") as stack:
        visitor = Visitor(chromium, stack["url"]).come()
        (tmp_path / "good.png").write_bytes(png())
        visitor.ask("What colour is it?", tmp_path / "good.png")
        visitor.sees("red|Red")
        processes = Supervisor(tmp_path / "state").rpc.supervisor
        processes.stopProcess("worker:worker-0")
        visitor.ask("What shape is it?")
        expect(visitor.answers.last).to_contain_text(GONE)
        expect(visitor.page.locator("#state")).not_to_have_attribute("data-phase", "ready", timeout=15_000)
        visitor.shot("server-away")
        processes.startProcess("worker:worker-0")
        expect(visitor.page.locator("#state")).to_have_attribute("data-phase", "ready", timeout=90_000)
        visitor.page.locator("#chat button[title=Retry]").click()
        visitor.sees("circle")
        expect(visitor.answers).to_have_count(2)
        visitor.leave()


def test_the_pages_server_goes_and_comes_back(chromium, tmp_path):
    with running_stack(tmp_path / "state") as stack:
        visitor = Visitor(chromium, stack["url"]).come()
        supervisor = Supervisor(tmp_path / "state")
        supervisor.rpc.supervisor.stopProcess("ui")
        expect(visitor.page.locator("#state")).to_have_attribute("data-phase", "lost", timeout=30_000)
        page = httpx.get(stack["url"])
        assert page.status_code == 503 and "正在启动" in page.text
        supervisor.rpc.supervisor.startProcess("ui")
        expect(visitor.page.locator("#state")).to_have_attribute("data-phase", "ready", timeout=60_000)
        (tmp_path / "good.png").write_bytes(png())
        visitor.ask("What colour is it?", tmp_path / "good.png")
        visitor.sees("red|Red")
        visitor.leave()


def test_a_wrong_login_is_refused_and_a_right_one_comes_in(chromium, demo_stack, tmp_path):
    python, port, file = ROOT / ".venv-ui/bin/python", free_port(), tmp_path / "logins"
    settings = {
        "LINGBI_UI_PORT": str(port),
        "LINGBI_UI_LOGIN_FILE": str(file),
        "LINGBI_UI_FILES_DIR": str(tmp_path / "f"),
    }
    settings |= {"LINGBI_UI_API_URL": f"http://127.0.0.1:{demo_stack['ports']['LINGBI_GATEWAY_INNER_PORT']}"}
    settings |= {"LINGBI_UI_API_KEY_FILE": demo_stack["api_key_file"]}
    environment = clean_environment(tmp_path) | settings
    add = [python, "-m", "lingbi_ui.logins", "add", "alice"]
    password = subprocess.run(add, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    assert password not in file.read_text() and file.stat().st_mode & 0o077 == 0
    server = subprocess.Popen([python, "-m", "lingbi_ui"], env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        assert wait_until(lambda: answers(f"{url}/live"), 60)
        assert httpx.post(f"{url}/gradio_api/queue/join", json={"data": []}).status_code == 401
        visitor = Visitor(chromium, url)
        visitor.page.goto(url)
        for word, is_right in (("wrong", False), (password, True)):
            visitor.page.locator("input").nth(0).fill("alice")
            visitor.page.locator("input").nth(1).fill(word)
            visitor.page.get_by_role("button", name="Login").click()
            if not is_right:
                expect(visitor.page.get_by_text(re.compile("incorrect", re.I)).first).to_be_visible()
                visitor.shot("wrong-login")
        expect(visitor.page.locator("#question textarea")).to_be_visible()
        visitor.leave()
    finally:
        server.terminate()
        server.wait(20)


@pytest.mark.parametrize("look", [{}, {"locale": "zh-CN", "color_scheme": "dark"}, {"size": (390, 844)}])
def test_axe_finds_no_serious_fault(visit, tmp_path, look):
    visitor = visit(**look)
    (tmp_path / "good.png").write_bytes(png())
    faults = axe_faults(visitor)
    visitor.ask("它是什么颜色?", tmp_path / "good.png")
    visitor.sees("red|Red|红")
    visitor.open_side()
    assert faults + axe_faults(visitor) == []


def axe_faults(visitor) -> list:
    found = Axe().run(visitor.page).response["violations"]
    return [
        f"{item['id']}: {node['html'][:150]} {node['failureSummary'][:200]}"
        for item in found
        if item["impact"] in ("serious", "critical")
        for node in item["nodes"]
    ]


def test_axe_can_find_one(visit):
    visitor = visit()
    visitor.page.evaluate("document.querySelector('#header').insertAdjacentHTML('beforeend', '<button></button>')")
    assert any(fault.startswith("button-name") for fault in axe_faults(visitor))
