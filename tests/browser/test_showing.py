"""What the page shows of an API that says what a test wants: how it is, and its words."""

import pytest
from playwright.sync_api import expect

from lingbi.http.readiness import LOADING_MODEL, PREPARING
from lingbi.model.catalogue import MODELS
from tests.browser.test_trouble import axe_faults
from tests.gateway.conftest import running_gateway
from tests.ui.conftest import READY, FakeApi, running_page

MARKDOWN = """# A title

Some **bold** words and `code`.

- one
- two

<img src="data:," onerror="window.isHurt = true"><script>window.isHurt = true</script>
<a href="javascript:window.isHurt = true">here</a>
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """(URL at a gateway, the API): a page before an API that says what a test wants."""
    api = FakeApi()
    with (
        running_page(tmp_path_factory.mktemp("told"), api.url) as page,
        running_gateway([api.url.removeprefix("http://")], UI=page.url.removeprefix("http://")) as gateway,
    ):
        yield gateway.url, api
    api.stop()


@pytest.mark.parametrize(
    ("ready", "english", "chinese"),
    [
        ({"phase": LOADING_MODEL, "progress": 0.62}, "Loading the language model 62 %", "正在加载语言模型 62 %"),
        (
            {"phase": PREPARING, "weights": {"done_bytes": 62, "total_bytes": 100}},
            "Preparing the weights 62 %",
            "正在准备权重 62 %",
        ),
    ],
)
def test_the_line_at_the_top_tells_how_far_it_is(visit, told, ready, english, chinese):
    url, api = told
    api.ready = ready
    for locale, words in (("en-US", english), ("zh-CN", chinese)):
        visitor = visit(url, is_in=False, locale=locale)
        visitor.page.goto(url)
        expect(visitor.page.locator("#phase")).to_have_text(words)
    visitor.shot("loading-zh")
    api.ready = READY
    expect(visitor.page.locator("#phase")).to_have_text("已就绪")
    expect(visitor.page.locator("#model")).to_have_text(READY["model"])


@pytest.mark.parametrize(
    ("locale", "purpose"), [("en-US", "pictures up to 4K, chat"), ("zh-CN", "最高 4K 的图片、对话")]
)
def test_the_side_panel_lists_the_models_and_marks_the_one_that_answers(visit, told, locale, purpose):
    url, api = told
    api.ready = READY | {"model": "internlm-xcomposer2-4khd-7b"}
    visitor = visit(url, locale=locale)
    visitor.open_side()
    visitor.page.locator("#models > button").click()
    models = visitor.page.locator("#models [data-model]")
    expect(models).to_have_count(len(MODELS))
    expect(visitor.page.locator("#models [aria-current]")).to_have_count(1)
    marked = visitor.page.locator("#models [data-model='internlm-xcomposer2-4khd-7b'][aria-current]")
    expect(marked).to_contain_text(purpose)
    marked.scroll_into_view_if_needed()
    visitor.shot(f"models-{locale}")
    assert axe_faults(visitor) == []
    api.ready = READY
    expect(visitor.page.locator("#models [aria-current]")).to_have_count(0, timeout=15_000)


def test_answers_are_markdown_and_their_html_does_nothing(visit, told):
    url, api = told
    api.ready, api.words = READY, [MARKDOWN[:40], MARKDOWN[40:]]
    visitor = visit(url)
    visitor.ask("hello")
    answer = visitor.answers.last
    expect(answer.locator("strong")).to_have_text("bold")
    expect(answer.locator("h1")).to_have_text("A title")
    expect(answer.locator("li")).to_have_count(2)
    expect(answer.locator("code")).to_have_text("code")
    visitor.is_idle()
    assert visitor.page.evaluate("document.querySelectorAll('#chat script, #chat [onerror]').length") == 0
    assert visitor.page.evaluate("document.querySelectorAll('#chat a[href^=javascript]').length") == 0
    assert visitor.page.evaluate("window.isHurt === undefined")
