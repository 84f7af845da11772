"""/admin in a real browser: by mouse, by keys alone, on a phone, and without JavaScript."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.test_trouble import axe_faults

PAGES = ("", "/keys", "/key?name=default", "/groups", "/group?name=pupils")
OWNER = "<script>window.isHurt = true</script> '; drop table keys; --"


def log_in(visitor, key: str, path: str = "/admin") -> None:
    visitor.page.goto(f"{visitor.url}{path}")
    visitor.page.fill("[name=key]", key)
    visitor.page.press("[name=key]", "Enter")
    expect(visitor.page.locator("nav [aria-current=page]")).to_be_visible()


def is_wide(visitor) -> bool:
    """Whether the page has to be scrolled sideways."""
    return visitor.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")


@pytest.fixture(scope="module")
def pupils(chromium, demo_stack):
    """A group with limits and a key in it with an odd owner; made without JavaScript, as the forms stand there."""
    context = chromium.new_context(java_script_enabled=False, locale="en-US")
    page = context.new_page()
    page.goto(f"{demo_stack['url']}/admin/groups")
    page.fill("[name=key]", demo_stack["key"])
    page.click("main button")
    page.goto(f"{demo_stack['url']}/admin/groups")
    page.locator("summary").click()
    page.fill("details [name=name]", "pupils")
    page.click("details button")
    page.fill("[name='member:tokens:month']", "2M")
    page.fill("[name='group:images:day']", "500")
    page.locator("form[action$='/group/change'] button").click()
    expect(page.locator("main")).to_contain_text("2,000,000 tokens a month for each key of the group")
    page.goto(f"{demo_stack['url']}/admin/keys")
    page.locator("summary").click()
    page.fill("details [name=name]", "pupil-1")
    page.fill("details [name=owner]", OWNER)
    page.select_option("details [name=group]", "pupils")
    page.click("details button")
    expect(page.locator(".shown input")).to_have_value(re.compile("^lb-"))
    page.reload()
    expect(page.locator(".shown input")).to_have_count(0)
    context.close()


LOOKS = {
    "en": {},
    "zh-dark": {"locale": "zh-CN", "color_scheme": "dark"},
    "phone": {"size": (390, 844)},
    "zh-phone-dark": {"locale": "zh-CN", "size": (390, 844), "color_scheme": "dark"},
}


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_of_administrators_fits_and_can_be_used_by_all(visit, demo_stack, pupils, look):
    visitor = visit(is_in=False, **LOOKS[look])
    visitor.page.goto(f"{visitor.url}/admin/login")
    assert axe_faults(visitor) == [] and not is_wide(visitor)
    log_in(visitor, demo_stack["key"])
    for path in PAGES:
        visitor.page.goto(f"{visitor.url}/admin{path}")
        for summary in visitor.page.locator("summary").all():
            if summary.locator("..").get_attribute("open") is None:
                summary.click()
        assert axe_faults(visitor) == [] and not is_wide(visitor), path
        visitor.shot(f"admin{re.sub('[^a-z]', '-', path)}-{look}")
    expect(visitor.page.locator("html")).to_have_attribute("lang", "zh-CN" if "zh" in look else "en")
    visitor.page.goto(f"{visitor.url}/admin/keys?owner=ishurt")  # other tests have owners with "drop" on this server
    expect(visitor.page.locator("tbody tr")).to_contain_text(OWNER)
    assert visitor.page.evaluate("window.isHurt === undefined")


def test_keys_alone_suffice(visit, demo_stack):
    """Log in, make a key, look for it, end it and log out, without a mouse."""
    visitor = visit(is_in=False)
    page = visitor.page
    page.goto(f"{visitor.url}/admin")
    expect(page.locator("[name=key]")).to_be_focused()
    page.keyboard.type(demo_stack["key"])
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Overview")
    tab_to(page, "a", "Skip to the content")
    page.keyboard.press("Enter")
    tab_to(page, "a", "Keys", back=True)
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Keys")
    tab_to(page, "summary", "Make a key")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type("by-keyboard")
    page.keyboard.press("Enter")
    expect(page.locator(".shown input")).to_have_value(re.compile("^lb-"))
    tab_to(page, "summary", "End this key")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    expect(page.locator(".said")).to_have_text("The key by-keyboard has ended.")
    tab_to(page, "button", "Log out")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Log in as an administrator")


def tab_to(page, tag: str, text: str, back: bool = False) -> None:
    for _ in range(80):
        page.keyboard.press("Shift+Tab" if back else "Tab")
        found = page.evaluate("[document.activeElement.localName, document.activeElement.textContent.trim()]")
        if found == [tag, text]:
            return
    raise AssertionError(f"no way to {text!r} by the keyboard")


def test_a_wrong_key_is_told_and_the_monthly_report_comes_as_a_file(visit, demo_stack):
    visitor = visit(is_in=False, locale="zh-CN")
    visitor.expect_faults("status of 401")
    visitor.page.goto(f"{visitor.url}/admin")
    visitor.page.fill("[name=key]", "lb-wrong")
    visitor.page.press("[name=key]", "Enter")
    expect(visitor.page.locator("[role=alert]")).to_contain_text("密钥无效")
    assert axe_faults(visitor) == []
    visitor.shot("admin-wrong-key-zh")
    log_in(visitor, demo_stack["key"])
    with visitor.page.expect_download() as download:
        visitor.page.get_by_role("button", name="下载").click()
    assert re.fullmatch(r"lingbi-\d{4}-\d\d\.csv", download.value.suggested_filename)


def test_a_chat_without_logins_has_no_link_to_the_own_use(visit):
    expect(visit().page.locator("#own-use")).to_have_count(0)
