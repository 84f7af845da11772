"""Talking about pictures on the page, judged by what the pictures show."""

import json
import re

import httpx
from playwright.sync_api import expect

from lingbi.images.scenes import Scene, Thing, draw
from lingbi.launch.supervision import Supervisor, wait_until
from tests.browser.conftest import halted
from tests.client import CHAT, metric

RED = Scene((Thing("red", "circle", size=0.5),), width=640, height=480)
BLUE = Scene((Thing("blue", "square", size=0.5),), width=640, height=480)


def image(folder, scene, name="picture.png"):
    file = folder / name
    draw(scene).save(file)
    return file


def worker(stack: dict) -> dict:
    return {"url": f"http://127.0.0.1:{stack['ports']['LINGBI_PORT']}"}


def test_upload_question_answer_and_second_question(visit, tmp_path):
    visitor = visit()
    assert visitor.background() > 200
    visitor.shot("welcome-en")
    visitor.ask("Describe the picture.", image(tmp_path, RED))
    visitor.sees("red circle")
    expect(visitor.page.locator("#chat .user-row img")).to_be_visible()
    visitor.ask("What shape is it?")  # the picture is kept
    visitor.sees("circle", 1)
    visitor.shot("conversation-en")


def test_tags_in_a_question_are_shown_as_they_were_typed(visit):
    visitor = visit()
    visitor.ask("Can you write <table> and <b>bold</b>?")
    expect(visitor.questions.last).to_contain_text("Can you write <table> and <b>bold</b>?")


def test_chinese_in_the_dark(visit, tmp_path):
    visitor = visit(locale="zh-CN", color_scheme="dark")
    expect(visitor.page.locator("#phase")).to_have_text("已就绪")
    assert visitor.background() < 60
    visitor.shot("welcome-zh-dark")
    visitor.ask("请描述图中内容", image(tmp_path, BLUE))
    visitor.sees("蓝色的正方形")
    visitor.open_side()
    expect(visitor.page.locator("#new")).to_have_text("新对话")
    visitor.shot("conversation-zh-dark")


def test_a_phone_shows_all_of_it(visit, tmp_path):
    visitor = visit(locale="zh-CN", size=(390, 844), has_touch=True, is_mobile=True)
    visitor.shot("welcome-phone")
    visitor.ask("它是什么颜色?", image(tmp_path, BLUE))
    visitor.sees("蓝色")
    visitor.shot("conversation-phone")
    widths = visitor.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert widths[0] <= widths[1]
    box = visitor.page.locator("#question").bounding_box()
    assert box["y"] + box["height"] <= 844


def test_a_phone_on_its_side_reaches_all_of_the_welcome(visit):
    visitor = visit(size=(740, 360), has_touch=True, is_mobile=True)
    heading = visitor.page.locator("#chat .placeholder h2 span:visible, #chat .placeholder h2:visible").first

    def is_reached() -> bool:
        heading.scroll_into_view_if_needed()
        return heading.bounding_box()["y"] >= visitor.page.locator("#chat").bounding_box()["y"]

    assert wait_until(is_reached, 10)  # the examples come later, and move it


def test_what_lies_in_the_closed_panel_takes_no_focus(visit):
    visitor = visit()
    visitor.page.focus("#question textarea")
    for _ in range(8):
        visitor.page.keyboard.press("Tab")
        assert visitor.page.evaluate("document.activeElement.getBoundingClientRect().x < window.innerWidth")
    visitor.open_side()
    visitor.page.locator(".sidebar .toggle-button").focus()
    visitor.page.keyboard.press("Tab")
    assert visitor.page.evaluate("document.activeElement.id") == "new"


def test_several_images_and_one_without_words(visit, tmp_path):
    visitor = visit()
    visitor.ask("", image(tmp_path, BLUE))
    visitor.sees("blue square")
    visitor.ask("Describe the picture.", image(tmp_path, RED, "a.png"), image(tmp_path, BLUE, "b.png"))
    expect(visitor.page.locator("#chat .user-row img")).to_have_count(3)
    expect(visitor.answers).to_have_count(2)
    visitor.is_idle()


def test_two_large_photos_at_once(visit, tmp_path):
    """Together they are more than the gateway takes of a question: both travel, and are sent smaller."""
    photos = [tmp_path / f"{name}.bmp" for name in "ab"]
    for photo in photos:
        draw(RED).resize((2500, 2400)).save(photo)
    assert sum(photo.stat().st_size for photo in photos) > 32 << 20
    visitor = visit()
    visitor.ask("What colour is it?", *photos)
    visitor.sees("red|Red")


def test_an_example_is_asked_by_a_click(visit):
    visitor = visit()
    visitor.page.locator("#chat .example").first.click()
    visitor.sees("red circle.*blue square")


def test_paste_and_drop(visit, tmp_path):
    visitor = visit()
    data = list(image(tmp_path, RED).read_bytes())
    script = """([selector, kind, bytes]) => {
        const files = new DataTransfer();
        files.items.add(new File([new Uint8Array(bytes)], "pasted.png", { type: "image/png" }));
        const target = document.querySelector(selector);
        const details = { bubbles: true, cancelable: true };
        target.dispatchEvent(kind === "paste" ? new ClipboardEvent(kind, { ...details, clipboardData: files })
            : new DragEvent(kind, { ...details, dataTransfer: files }));
    }"""
    for number, (selector, kind) in enumerate((("textarea", "paste"), (".full-container", "drop")), 1):
        visitor.page.evaluate(script, [f"#question {selector}", kind, data])
        expect(visitor.page.locator("#question .thumbnail-item")).to_have_count(number)
    visitor.ask("What colour is it?")
    visitor.sees("red|Red")


def test_the_camera(visit):
    visitor = visit(permissions=["camera"])
    visitor.open_side()
    visitor.page.locator("#camera").get_by_text("Take a picture").click()
    webcam = visitor.page.locator("#webcam")
    webcam.get_by_text(re.compile("Click to Access Webcam|access", re.I)).first.click()
    visitor.page.wait_for_function("document.querySelector('#webcam video')?.videoWidth > 0")
    webcam.locator(
        "button[aria-label='capture photo'], button[aria-label='Capture photo'], .controls button"
    ).first.click()
    expect(visitor.page.locator("#question .thumbnail-item")).to_have_count(1)


def test_ten_fast_enters_are_one_question(visit, tmp_path):
    visitor = visit()
    visitor.add(image(tmp_path, RED))
    visitor.type("What colour is it?")
    visitor.page.evaluate("""() => { for (let i = 0; i < 10; i++) document.querySelector("#question textarea")
        .dispatchEvent(new KeyboardEvent("keypress", { key: "Enter", code: "Enter", bubbles: true })); }""")
    for _ in range(10):
        visitor.page.keyboard.press("Enter", delay=0)
    visitor.sees("red|Red")
    visitor.page.wait_for_timeout(1000)
    expect(visitor.questions).to_have_count(1)
    expect(visitor.answers).to_have_count(1)


def test_an_empty_question_asks_nothing(visit):
    visitor = visit()
    visitor.ask("   ")
    expect(visitor.page.get_by_text("Type a question, or add a picture.")).to_be_visible()
    expect(visitor.questions).to_have_count(0)


def test_retry_edit_and_a_new_conversation(visit, tmp_path):
    visitor = visit()
    visitor.ask("What colour is it?", image(tmp_path, RED))
    visitor.sees("red|Red")
    visitor.retry()
    visitor.sees("red|Red")
    expect(visitor.answers).to_have_count(1)
    visitor.page.locator("#chat button[title=Edit]").last.click()
    visitor.page.locator("#chat textarea").last.fill("What shape is it?")
    visitor.page.locator("#chat button[title=Submit]").last.click()
    visitor.sees("circle")
    expect(visitor.questions).to_have_count(1)
    expect(visitor.questions).to_contain_text("What shape is it?")
    expect(visitor.page.locator("#chat .user-row img")).to_be_visible()
    visitor.open_side()
    visitor.page.locator("#new").click()
    expect(visitor.questions).to_have_count(0)


def test_the_conversation_can_be_downloaded(visit, tmp_path):
    visitor = visit()
    visitor.ask("What colour is it?", image(tmp_path, RED))
    visitor.sees("red|Red")
    visitor.open_side()
    with visitor.page.expect_download() as waiting:
        visitor.page.locator("#download").click()
    text = (waiting.value.path()).read_text()
    assert (
        "**You**" in text
        and "What colour is it?" in text
        and re.search("red|Red", text)
        and "data:image/png;base64," in text
    )


def test_two_visitors_see_their_own(visit, tmp_path):
    first, second = visit(), visit(locale="zh-CN")
    first.ask("What colour is it?", image(tmp_path, RED))
    second.ask("它是什么颜色?", image(tmp_path, BLUE))
    first.sees("red|Red")
    second.sees("蓝")
    expect(first.questions).to_have_count(1)
    expect(second.questions).to_have_count(1)
    assert "蓝" not in first.page.inner_text("#chat")


def lines_of_the_page(stack: dict) -> list:
    """What the worker logged of the page's questions, one dict each."""
    lines = (stack["state_dir"] / "logs" / "worker-0.log").read_text().splitlines()
    return [json.loads(line) for line in lines if '"key": "ui"' in line and CHAT in line]


def begin_endless_answer(visitor) -> None:
    """What was said comes again and again, until the session is full."""
    visitor.set_option("Repetition penalty", 0.01)
    visitor.ask("Hello!")
    expect(visitor.answers.last).to_contain_text(re.compile(".+"))


def test_stop_ends_the_answer_in_the_engine(visit, tmp_path, demo_stack):
    visitor, before = visit(), len(lines_of_the_page(demo_stack))
    begin_endless_answer(visitor)
    with halted(Supervisor(demo_stack["state_dir"]).rpc.supervisor):
        visitor.page.locator("#question .stop-button").click()
        visitor.is_idle()
    assert_cut_off(demo_stack, before)
    visitor.set_option("Repetition penalty", 1)
    visitor.page.locator("#new").click()  # what was said so often would be said again
    visitor.ask("What shape is it?", image(tmp_path, RED))
    visitor.sees("circle")


def test_a_closed_tab_ends_the_answer_in_the_engine(visit, demo_stack):
    visitor, before = visit(), len(lines_of_the_page(demo_stack))
    begin_endless_answer(visitor)
    with halted(Supervisor(demo_stack["state_dir"]).rpc.supervisor):
        visitor.page.close()
    assert_cut_off(demo_stack, before)


def assert_cut_off(stack: dict, lines_before: int) -> None:
    """The page's last answer leaves the engine at once, and has not ended by itself."""
    assert wait_until(lambda: metric(worker(stack), "lingbi_requests_inside") == 0, 10)

    # Its line is written when its request has gone; one of an earlier answer may come late.
    def cut_off() -> list:
        return [line for line in lines_of_the_page(stack)[lines_before:] if "finish_reason" not in line]

    assert wait_until(cut_off, 5), lines_of_the_page(stack)[lines_before:]


def test_uploads_are_not_listed(demo_stack):
    for path in ("/gradio_api/file=/etc/passwd", "/gradio_api/file=/", "/config/../../etc/passwd"):
        assert httpx.get(demo_stack["url"] + path).status_code in (400, 403, 404), path
