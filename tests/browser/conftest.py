"""A real Chromium before the real page, gateway and server with the demo model."""

import contextlib
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from lingbi.launch.supervision import wait_until
from tests import debian
from tests.conftest import ROOT

PACKAGES = ("chromium-headless-shell", "fonts-noto-cjk")
PROGRAM = "/usr/bin/chromium-headless-shell"
SHOTS = ROOT / ".artefacts" / "screenshots"
FLAGS = ("--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
SLIDE_MS = 400  # the side panel's way in
expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def chromium():
    """The browser; Debian's, installed where it is missing.

    Of one module: while Playwright's synchronous side is open, nothing in this thread can run an event loop.
    """
    debian.ensure(*PACKAGES, has=lambda: shutil.which(PROGRAM))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=list(FLAGS))
        yield browser
        browser.close()


@contextlib.contextmanager
def halted(processes):
    """The worker does nothing in the block, so that no answer ends in it. processes: a supervisor's calls."""
    processes.signalProcess("worker:worker-0", "STOP")
    try:
        yield
    finally:
        processes.signalProcess("worker:worker-0", "CONT")


class Visitor:
    """Somebody at the page: what they do, and what their browser noticed."""

    def __init__(self, browser, url: str, locale: str = "en-US", size=(1280, 860), **options):
        self.url, self.faults, self.elsewhere, self.expected = url, [], [], None
        width, height = size
        options = {"locale": locale, "viewport": {"width": width, "height": height}, "accept_downloads": True} | options
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.on("console", lambda message: message.type == "error" and self.faults.append(message.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", self._note)

    def _note(self, request) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.elsewhere.append(request.url)

    def come(self) -> "Visitor":
        self.page.goto(self.url)
        expect(self.page.locator("#state")).to_have_attribute("data-phase", "ready", timeout=60_000)
        expect(self.page.locator("#chat .example")).to_have_count(4)
        return self

    def add(self, *files) -> None:
        self.page.set_input_files("#question input[type=file]", [str(file) for file in files])
        expect(self.page.locator("#question .thumbnail-item, #question .thumbnail-image").last).to_be_visible()
        expect(self.page.locator("#question .loader, #question .uploading")).to_have_count(0)

    def type(self, text: str) -> None:
        self.page.fill("#question textarea", text)

    def ask(self, text: str, *files) -> None:
        if files:
            self.add(*files)
        self.type(text)
        self.page.press("#question textarea", "Enter")

    def retry(self) -> None:
        """Ask the last question again; the old answer, which may be the same as the new one, has gone when this returns."""
        self.answers.last.evaluate("answer => answer.dataset.old = 'yes'")
        self.page.locator("#chat button[title=Retry]").click()
        expect(self.page.locator("#chat [data-old]")).to_have_count(0)

    @property
    def answers(self):
        return self.page.locator("#chat [data-testid=bot]")

    @property
    def questions(self):
        """What the visitor wrote; each picture stands in a row of its own."""
        return self.page.locator("#chat [data-testid=user] .md")

    def sees(self, pattern: str, number: int = -1) -> None:
        """The answer with this number comes to hold the pattern, and is whole."""
        answer = self.answers.last if number < 0 else self.answers.nth(number)
        expect(answer).to_contain_text(re.compile(pattern))
        self.is_idle()

    def is_idle(self) -> None:
        expect(self.page.locator("#question [data-testid=submit-button]")).to_be_visible()

    def set_option(self, label: str, value) -> None:
        """One of the sampling controls in the side panel."""
        self.open_side()
        block = self.page.locator("#options .block", has_text=label).last
        field = block.locator("input[type=number]")
        field.fill(str(value))
        field.press("Tab")

    def open_side(self) -> None:
        if not self._is_side_open():
            self.page.locator(".sidebar .toggle-button").click()
            assert wait_until(self._is_side_open, 5)
            self.page.wait_for_timeout(SLIDE_MS)

    def _is_side_open(self) -> bool:
        return self.page.locator("#new").bounding_box()["x"] < self.page.viewport_size["width"]

    def shot(self, name: str) -> Path:
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png")
        return SHOTS / f"{name}.png"

    def expect_faults(self, pattern: str) -> None:
        """What the console may say because of what the test does."""
        self.expected = re.compile(pattern)

    def unexpected(self) -> list:
        return [fault for fault in self.faults if not (self.expected and self.expected.search(fault))]

    def background(self) -> int:
        """How light the page is, 0 to 255."""
        script = "getComputedStyle(document.querySelector('gradio-app')).backgroundColor"
        return max(map(int, re.findall(r"\d+", self.page.evaluate(script))[:3]))

    def leave(self) -> None:
        if self.context:
            self.context.close()
        self.context = None


@pytest.fixture
def visit(chromium, request):
    """visit(**options): a visitor at the running page, or at `url`; what their browser complained of fails the test.

    is_in: whether they wait until the page is ready.
    """
    here = []

    def come(url=None, is_in=True, **options) -> Visitor:
        url = url or request.getfixturevalue("demo_stack")["url"]
        here.append(Visitor(chromium, url, **options))
        return here[-1].come() if is_in else here[-1]

    yield come
    for visitor in here:
        visitor.leave()
    faults = [fault for visitor in here for fault in visitor.unexpected()]
    assert faults == [], faults
    assert [url for visitor in here for url in visitor.elsewhere] == []
