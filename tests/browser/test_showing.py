"""What the page shows of an API that says what a test wants: how it is, and its words."""

import pytest
from playwright.sync_api import expect

from lingbi.http.readiness import LOADING_MODEL, PREPARING
from lingbi.model.catalogue import MODELS
from tests.browser.test_trouble import axe_faults
from tests.gateway.conftest import running_gateway
from tests.ui.conftest import READY, FakeApi, entry, running_page

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


VL, HD = "internlm-xcomposer2-vl-7b", "internlm-xcomposer2-4khd-7b"


@pytest.fixture
def several(told):
    """As `told`, before two models of which one is asleep."""
    url, api = told
    api.ready, api.words = READY, ["an answer"]
    api.offer = [entry(VL, image_tokens=[1225, 1225]), entry(HD, "asleep", image_tokens=[1897, 4057])]
    yield url, api
    api.offer, api.comments = [], []


def test_a_visitor_picks_a_model_by_the_keyboard_and_reads_which_one_answered(visit, several):
    url, api = several
    visitor = visit(url, is_in=False)
    visitor.page.goto(url)
    pick = visitor.page.get_by_label("Model that answers")
    expect(pick.locator("option")).to_have_text(["vl-7b · Ready", "4khd-7b · Sleeping until it is asked"])
    expect(visitor.page.locator("#facts")).to_have_text("A picture takes 1225 tokens of 4096")
    expect(pick).to_have_accessible_description("A picture takes 1225 tokens of 4096")
    expect(visitor.page.locator("#phase")).to_have_text("Ready")
    visitor.ask("hello")
    visitor.sees(r"vl-7b\s+an answer")
    pick.focus()
    visitor.page.keyboard.press("ArrowDown")
    expect(visitor.page.locator("#phase")).to_have_text("Sleeping until it is asked")
    expect(visitor.page.locator("#facts")).to_have_text("A picture takes 1897-4057 tokens of 4096")
    visitor.ask("and now?")
    visitor.sees(r"4khd-7b\s+an answer", 1)
    assert [body["model"] for body in api.asked[-2:]] == [VL, HD]
    assert [message["content"] for message in api.asked[-1]["messages"]][1] == "an answer"
    assert axe_faults(visitor) == []
    visitor.shot("picker-en")
    visitor.page.reload()
    expect(pick).to_have_value(HD)  # the browser keeps it


def test_a_phone_shows_the_picker_in_chinese_and_tells_when_a_model_wakes_or_is_gone(visit, several):
    url, api = several
    visitor = visit(url, is_in=False, locale="zh-CN", size=(390, 844), has_touch=True, is_mobile=True)
    visitor.page.goto(url)
    pick = visitor.page.get_by_label("回答的模型")
    pick.select_option(HD)
    expect(visitor.page.locator("#phase")).to_have_text("休眠中，提问后加载")
    api.offer[1] = entry(HD, "waking", progress=0.4, image_tokens=[1897, 4057])
    expect(visitor.page.locator("#phase")).to_have_text("正在加载 40 %", timeout=15_000)
    expect(pick.locator("option").nth(1)).to_have_text("4khd-7b · 正在加载 40 %")
    visitor.shot("picker-phone")
    widths = visitor.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert widths[0] <= widths[1]
    assert axe_faults(visitor) == []
    api.offer = [entry(VL), entry("shapes")]
    expect(visitor.page.locator("#phase")).to_have_text("已不再提供", timeout=15_000)
    visitor.ask("你好")
    visitor.sees("这里已不再提供这个模型")
    api.offer = [entry(VL)]  # one alone needs no choice
    expect(pick).to_be_hidden(timeout=15_000)
    visitor.ask("你好")
    visitor.sees(r"^\s*an answer", 1)
