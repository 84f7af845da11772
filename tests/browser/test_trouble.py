"""What goes wrong at the page ends with a sentence, and the page goes on."""

import io
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from lingbi.images.scenes import Scene, Thing, draw
from lingbi.launch.supervision import Supervisor
from tests.browser.conftest import halted
from tests.conftest import clean_environment, running_stack
from tests.gateway.conftest import running_gateway
from tests.ui.conftest import PYTHON, running_page

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
SEEN_WHEN_ASKED = ("broken.png", "moving.gif")  # they begin as pictures do


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_named_and_the_question_stays(visit, tmp_path, name):
    data, english, chinese = BAD_FILES[name]
    (tmp_path / name).write_bytes(data)
    (tmp_path / "good.png").write_bytes(png())
    for locale, word in (("en-US", english), ("zh-CN", chinese)):
        visitor = visit(locale=locale)
        visitor.expect_faults("status of 415")
        visitor.type("What colour is it?")
        visitor.page.set_input_files("#question input[type=file]", str(tmp_path / name))
        if name in SEEN_WHEN_ASKED:
            expect(visitor.page.locator("#question .thumbnail-item, #question .thumbnail-image").last).to_be_visible()
            visitor.ask("What colour is it?")
        expect(visitor.page.locator(".toast-body, .note").first).to_contain_text(word)
        expect(visitor.page.locator(".toast-body, .note").first).to_contain_text(name)
        expect(visitor.page.locator("#question textarea")).to_have_value("What colour is it?")
        visitor.shot(f"bad-file-{locale}")
        visitor.ask("What colour is it?", tmp_path / "good.png")
        visitor.sees("red|Red")


@pytest.mark.parametrize(
    ("locale", "words"),
    [("en-US", "“huge.bmp” is too large: at most 20 MiB"), ("zh-CN", "“huge.bmp”太大：每张图片最多 20 MiB")],
)
def test_40_mb_are_refused_with_a_sentence(visit, tmp_path, locale, words):
    (tmp_path / "huge.bmp").write_bytes(b"BM" + b"\x00" * 40 * (1 << 20))
    visitor, uploads = visit(locale=locale), []
    visitor.page.on("request", lambda request: "/upload" in request.url and uploads.append(request.url))
    visitor.page.set_input_files("#question input[type=file]", str(tmp_path / "huge.bmp"))
    expect(visitor.page.locator(".note")).to_contain_text(words)
    assert uploads == []
    visitor.shot(f"huge-file-{locale}")
    visitor.page.locator(".note button").click()
    expect(visitor.page.locator(".note")).to_have_count(0)
    (tmp_path / "good.png").write_bytes(png())
    visitor.ask("What colour is it?", tmp_path / "good.png")
    visitor.sees("red|Red")


@pytest.mark.parametrize(
    ("locale", "status", "words"),
    [
        ("en-US", 503, "This page's server cannot be reached"),
        ("zh-CN", None, "暂时连接不到网页服务"),
        ("zh-CN", 429, "请求太多"),
        ("en-US", 429, "Too many requests from here"),
    ],
)
def test_what_the_gateway_says_to_a_question_or_an_upload_is_a_sentence(visit, tmp_path, locale, status, words):
    """status: the gateway's page of it, or None where nobody answers at all."""
    visitor = visit(locale=locale)
    visitor.expect_faults("Failed to load resource|ERR_")

    def refuse(route):
        route.fulfill(status=status, body="<html>", content_type="text/html") if status else route.abort()

    (tmp_path / "good.png").write_bytes(png())
    for address, act in (
        ("**/queue/join*", lambda: visitor.ask("hello")),
        ("**/gradio_api/upload*", lambda: visitor.page.set_input_files("input[type=file]", str(tmp_path / "good.png"))),
    ):
        visitor.page.route(address, refuse)
        act()
        expect(visitor.page.locator(".toast-body, .note").last).to_contain_text(words)
        expect(visitor.page.locator("body")).not_to_contain_text("<html>")
        visitor.page.unroute(address)
        visitor.shot(f"gateway-{locale}-{status}")
        visitor.come()  # what lies about is gone, and the page works
    visitor.ask("hello")
    expect(visitor.answers).to_have_count(1)
    visitor.is_idle()


def test_a_conversation_that_is_too_long_is_a_sentence(visit):
    visitor = visit()
    visitor.ask("word " * 6000)
    expect(visitor.answers.last).to_contain_text("too long for the model")
    visitor.is_idle()
    visitor.ask("hello")  # the question that was refused is not sent again
    expect(visitor.answers).to_have_count(2)
    expect(visitor.answers.last).not_to_contain_text("⚠️")


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory):
    """The demo model behind page and gateway, with its supervisor's calls, for tests that end parts of it and start them again."""
    state_dir = tmp_path_factory.mktemp("own stack") / "state"
    with running_stack(state_dir) as stack:
        yield stack["url"], Supervisor(state_dir).rpc.supervisor


def test_the_server_goes_and_comes_back(visit, own_stack, tmp_path):
    """Its page shows it, answers with a sentence meanwhile, and works again by itself."""
    url, processes = own_stack
    visitor = visit(url)
    (tmp_path / "good.png").write_bytes(png())
    visitor.ask("What colour is it?", tmp_path / "good.png")
    visitor.sees("red|Red")
    processes.stopProcess("worker:worker-0")
    visitor.ask("What shape is it?")
    expect(visitor.answers.last).to_contain_text(GONE)
    expect(visitor.page.locator("#state")).not_to_have_attribute("data-phase", "ready", timeout=15_000)
    visitor.shot("server-away")
    processes.startProcess("worker:worker-0")
    expect(visitor.page.locator("#state")).to_have_attribute("data-phase", "ready", timeout=90_000)
    visitor.retry()
    visitor.sees("circle")
    expect(visitor.answers).to_have_count(2)


def test_the_pages_server_goes_and_comes_back(visit, own_stack, tmp_path):
    url, processes = own_stack
    visitor = visit(url)
    visitor.expect_faults("Failed to load resource|ERR_|Connection errored out")
    processes.stopProcess("ui")
    expect(visitor.page.locator("#state")).to_have_attribute("data-phase", "lost", timeout=30_000)
    page = httpx.get(url)
    assert page.status_code == 503 and "正在启动" in page.text
    visitor.ask("hello")
    expect(visitor.page.locator(".toast-body").last).to_contain_text("This page's server cannot be reached")
    processes.startProcess("ui")
    expect(visitor.page.locator("#state")).to_have_attribute("data-phase", "ready", timeout=60_000)
    (tmp_path / "good.png").write_bytes(png())
    visitor.ask("What colour is it?", tmp_path / "good.png")
    visitor.sees("red|Red")


@pytest.mark.parametrize(
    ("locale", "penalty", "words"),
    [
        ("en-US", "Repetition penalty", "The connection broke while the answer was coming"),
        ("zh-CN", "重复惩罚", "回答途中连接断开"),
    ],
)
def test_a_connection_that_breaks_in_an_answer_leaves_the_conversation(
    visit, own_stack, tmp_path, locale, penalty, words
):
    url, processes = own_stack
    visitor = visit(url, locale=locale)
    visitor.expect_faults("Failed to load resource|Unexpected error")
    (tmp_path / "good.png").write_bytes(png())
    visitor.ask("它是什么颜色?", tmp_path / "good.png")
    visitor.sees("红")
    visitor.set_option(penalty, 0.01)
    visitor.ask("Hello!")
    expect(visitor.answers.nth(1)).to_contain_text("Hello")
    with halted(processes):
        processes.stopProcess("gateway")
        expect(visitor.page.locator(".note")).to_contain_text(words)
        expect(visitor.page.locator("#state")).to_have_attribute("data-phase", "lost")
        visitor.shot(f"broken-{locale}")
    processes.startProcess("gateway")
    expect(visitor.page.locator("#state")).to_have_attribute("data-phase", "ready", timeout=60_000)
    visitor.is_idle()
    visitor.set_option(penalty, 1)
    visitor.ask("Hello!")
    visitor.sees("^[^⚠]+$", 2)
    expect(visitor.answers.first).to_contain_text("红")
    expect(visitor.page.locator("#chat .user-row img")).to_have_count(1)


def test_a_question_without_a_connection_is_kept_with_the_conversation(visit, own_stack, tmp_path):
    url, processes = own_stack
    visitor = visit(url, locale="zh-CN")
    visitor.expect_faults("Failed to load resource")
    (tmp_path / "good.png").write_bytes(png())
    visitor.ask("它是什么颜色?", tmp_path / "good.png")
    visitor.sees("红")
    processes.stopProcess("gateway")
    visitor.ask("它是什么形状?")
    note = visitor.page.locator(".toast-body")
    expect(note).to_contain_text("暂时连接不到网页服务")
    expect(note.locator(".toast-title")).to_have_text("请注意 ")
    expect(visitor.answers.first).to_be_visible()
    expect(visitor.page.locator("#chat [data-testid=status-tracker]")).to_be_hidden()  # it would cover the conversation
    visitor.shot("asked-without-a-connection")
    processes.startProcess("gateway")
    expect(visitor.page.locator("#state")).to_have_attribute("data-phase", "ready", timeout=60_000)
    visitor.page.wait_for_timeout(3000)  # Gradio would load the page anew within two seconds
    expect(visitor.page.locator("#question textarea")).to_have_value("它是什么形状?")
    visitor.page.press("#question textarea", "Enter")
    visitor.sees("圆", 1)


@pytest.fixture
def login_page(demo_stack, tmp_path):
    """(URL at a gateway, password of alice): a page that asks for names, before the running server."""
    inner = f"127.0.0.1:{demo_stack['ports']['LINGBI_GATEWAY_INNER_PORT']}"
    file = tmp_path / "logins"
    settings = {"LOGIN_FILE": file, "API_KEY_FILE": demo_stack["state_dir"] / "ui-key"}
    add = [PYTHON, "-m", "lingbi_ui.logins", "add", "alice"]
    environment = clean_environment(tmp_path) | {"LINGBI_UI_LOGIN_FILE": str(file)}
    password = subprocess.run(add, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    assert password not in file.read_text() and file.stat().st_mode & 0o077 == 0
    page = running_page(tmp_path, f"http://{inner}", **settings)
    with page as found, running_gateway([inner], UI=found.url.removeprefix("http://")) as gateway:
        yield gateway.url, password


def test_a_wrong_login_is_refused_and_a_right_one_comes_in(login_page, visit):  # visitors leave before the page ends
    url, password = login_page
    assert httpx.post(f"{url}/gradio_api/queue/join", json={"data": []}).status_code == 401
    visitor = visit(url, is_in=False)
    visitor.expect_faults("status of 40[01]")
    visitor.page.goto(url)
    for word, is_right in (("wrong", False), (password, True)):
        visitor.page.locator("input").nth(0).fill("alice")
        visitor.page.locator("input").nth(1).fill(word)
        visitor.page.get_by_role("button", name="Login").click()
        if not is_right:
            expect(visitor.page.get_by_text(re.compile("incorrect", re.I)).first).to_be_visible()
            visitor.shot("wrong-login")
    expect(visitor.page.locator("#question textarea")).to_be_visible()
    visitor.ask("hello")
    expect(visitor.answers).to_have_count(1)
    visitor.is_idle()
    wrong = {"username": "alice", "password": "x"}
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda _: httpx.post(f"{url}/login/", data=wrong, timeout=60).status_code, range(20)))
    assert 429 in found and set(found) == {400, 429}
    assert visitor.page.request.get(f"{url}/logout").ok
    visitor.expect_faults("status of 40[01]")
    visitor.page.fill("#question textarea", "and now?")
    visitor.page.press("#question textarea", "Enter")
    expect(visitor.page.locator(".toast-body, .note").last).to_contain_text("not logged in")


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
