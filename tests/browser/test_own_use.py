"""/usage in a real browser: a visitor comes from the chat."""

import pytest
from playwright.sync_api import expect

from tests.browser.test_accounts import LOOKS, is_wide
from tests.browser.test_trouble import axe_faults, login_page  # noqa: F401 - a fixture


@pytest.mark.parametrize("look", ["en", "zh-phone-dark"])
def test_a_visitor_comes_from_the_chat_to_the_own_use(visit, login_page, look):  # noqa: F811 - the fixture
    url, password = login_page
    visitor = visit(url, is_in=False, **LOOKS[look])
    visitor.page.request.post(f"{url}/login", form={"username": "alice", "password": password})
    visitor.come()
    assert axe_faults(visitor) == []
    visitor.page.locator("#own-use").click()
    expect(visitor.page.locator("h1")).to_have_text("我的用量" if "zh" in look else "Your use")
    expect(visitor.page.locator("main")).to_contain_text("alice")
    assert axe_faults(visitor) == [] and not is_wide(visitor)
    visitor.shot(f"usage-{look}")
