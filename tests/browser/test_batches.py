"""/batches in a real browser: batches that run, failed and ended, by whoever owns them."""

import json

import pytest
from openai import OpenAI
from playwright.sync_api import expect

from lingbi.launch.supervision import wait_until
from tests.browser.test_accounts import LOOKS, is_wide, log_in
from tests.browser.test_trouble import axe_faults, login_page  # noqa: F401 - a fixture
from tests.system.test_batches import ended, line, submit

LONG_NAME = "a-long-name-of-a-file-of-requests-for-a-paper-about-shapes-that-nobody-has-cut.jsonl"
BROKEN = "data:image/png;base64,AAAA"


@pytest.fixture(scope="module")
def batches(demo_stack):
    """{kind: id}: one that has ended with errors, one whose input is none, and one that runs for as long as these tests."""
    client = OpenAI(api_key=demo_stack["key"], base_url=f"{demo_stack['url']}/v1", max_retries=0)
    lines = [line("good", BROKEN) | {"body": words("hello")}, line("a broken picture", BROKEN)]
    mixed = submit(client, lines).id
    file = client.files.create(file=(LONG_NAME, b"oops\n"), purpose="batch")
    bad = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h").id
    for batch in (mixed, bad):
        ended(client, batch)
    running = submit(client, [line(str(n), "") | {"body": words("hello", max_tokens=200)} for n in range(5000)]).id
    assert wait_until(lambda: client.batches.retrieve(running).status == "in_progress", 60)  # its lines are read first
    yield {"mixed": mixed, "bad": bad, "running": running}
    client.batches.cancel(running)
    ended(client, running)


def words(question: str, **body) -> dict:
    return {"model": "internlm-xcomposer2-demo", "messages": [{"role": "user", "content": question}]} | body


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_of_batches_fits_and_can_be_used_by_all(visit, demo_stack, batches, look):
    visitor = visit(is_in=False, **LOOKS[look])
    page = visitor.page
    page.goto(f"{visitor.url}/batches")
    assert axe_faults(visitor) == [] and not is_wide(visitor)
    log_in(visitor, demo_stack["key"], "/batches")
    expect(page.locator(".state.in_progress").first).to_be_visible()
    expect(page.locator(".rows")).to_contain_text(LONG_NAME)
    for path in ("/batches", *(f"/batches/batch?name={batch}" for batch in batches.values())):
        page.goto(f"{visitor.url}{path}")
        for summary in page.locator("summary").all():
            if summary.locator("..").get_attribute("open") is None:
                summary.click()
        assert axe_faults(visitor) == [] and not is_wide(visitor), path
        visitor.shot(f"batches-{path.partition('_')[2][:6] or 'all'}-{look}")
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN" if "zh" in look else "en")


def test_files_are_downloaded_and_a_page_keeps_itself_up_to_date(visit, demo_stack, batches):
    visitor = visit(is_in=False)
    page = visitor.page
    log_in(visitor, demo_stack["key"], "/batches")
    page.goto(f"{visitor.url}/batches/batch?name={batches['mixed']}")
    for kind, custom_id in (("Results", "good"), ("Errors", "a broken picture")):
        with page.expect_download() as download:
            page.get_by_role("link", name=f"{kind} of").click()
        with open(download.value.path()) as stream:
            assert json.loads(stream.readline())["custom_id"] == custom_id
    page.goto(f"{visitor.url}/batches/batch?name={batches['running']}")
    page.get_by_role("link", name="Keep this page up to date").click()
    expect(page.get_by_role("link", name="Stop updating")).to_be_visible()
    with page.expect_event("load", timeout=90_000):
        pass  # nobody does anything
    expect(page.get_by_role("link", name="Stop updating")).to_be_visible()


@pytest.mark.parametrize("look", ["en", "zh-phone-dark"])
def test_a_visitor_comes_from_the_chat_and_submits_a_batch(visit, login_page, tmp_path, look):  # noqa: F811 - the fixture
    url, password = login_page
    visitor = visit(url, is_in=False, **LOOKS[look])
    page = visitor.page
    page.request.post(f"{url}/login", form={"username": "alice", "password": password})
    visitor.come()
    assert axe_faults(visitor) == []
    page.locator("#own-batches").click()
    expect(page.locator("h1")).to_have_text("alice 的批处理" if "zh" in look else "Batches of alice")
    file = tmp_path / "lines.jsonl"
    file.write_text(json.dumps(line("a", "") | {"body": words("hello")}) + "\n")
    if not page.locator("[name=file]").is_visible():
        page.locator("summary").click()
    page.set_input_files("[name=file]", str(file))
    page.get_by_role("button", name="提交" if "zh" in look else "Submit").click()
    expect(page.locator(".said")).to_contain_text("lines.jsonl")
    assert axe_faults(visitor) == [] and not is_wide(visitor)
    visitor.shot(f"batches-submitted-{look}")
