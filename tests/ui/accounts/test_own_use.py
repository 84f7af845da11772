"""/usage: what a visitor with a login has used and what is left, before the real server."""

import re

import httpx
import pytest

from tests.ui.accounts.conftest import LEAVER, LOGINS, Administrator
from tests.ui.accounts.test_admin import comes
from tests.ui.conftest import ASKED, OPTIONS

ENDED = "Your account on this page has ended"


def logged_in(browser, guarded, name: str) -> None:
    answer = browser.post("/login", data={"username": name, "password": guarded[1][name]})
    assert answer.status_code == 200


@pytest.mark.parametrize("name", LOGINS)
def test_a_visitor_sees_the_own_use_and_nobody_elses(guarded, browser, api, name):
    page, _ = guarded
    assert browser.get("/usage").headers["location"] == "/"
    logged_in(browser, guarded, name)
    text = browser.get("/usage").text
    assert name in text and "No limits are set" in text
    page.client.cookies = browser.cookies
    said = page.send("retry", [ASKED, *OPTIONS])
    assert said[-1]["success"] and "⚠️" not in str(said), said
    tokens = re.compile(r"Answer tokens</dt><dd>([1-9]\d*)<")
    assert comes(lambda: len(tokens.findall(browser.get("/usage").text)) == 2), "today and this month"
    headers = {"Authorization": f"Bearer {api[1]}"}
    limit = {"limits": {"requests": {"month": 50}}}
    changed = httpx.patch(f"{api[0]}/v1/admin/keys/ui/{name}", json=limit, headers=headers)
    assert changed.status_code == 200, changed.text
    assert comes(lambda: "49 left" in browser.get("/usage").text)
    chinese = browser.get("/usage", headers={"Accept-Language": "zh-CN"}).text
    assert "剩余 49" in chinese and "每月 50 请求" in chinese and "已用 1（2 %）" in chinese
    page.client.cookies.clear()


def test_a_visitor_whose_quota_is_used_up_reads_a_sentence(guarded, browser, api):
    page, _ = guarded
    logged_in(browser, guarded, LOGINS[0])
    assert browser.get("/usage").status_code == 200  # whoever was never here has no account yet
    headers = {"Authorization": f"Bearer {api[1]}"}
    limit = {"limits": {"requests": {"month": 0}}}
    assert httpx.patch(f"{api[0]}/v1/admin/keys/ui/{LOGINS[0]}", json=limit, headers=headers).status_code == 200
    page.client.cookies = browser.cookies
    said = []
    assert comes(lambda: said.append(str(page.send("retry", [ASKED, *OPTIONS]))) or "You have used" in said[-1]), said
    page.client.cookies.clear()


def test_a_visitor_whose_account_has_ended_reads_so_everywhere(guarded, browser, api):
    page, _ = guarded
    logged_in(browser, guarded, LEAVER)
    visitor = Administrator(browser)
    assert visitor.open("/batches").status_code == 200
    form = visitor.form("/batches/submit")
    headers = {"Authorization": f"Bearer {api[1]}"}
    account = f"{api[0]}/v1/admin/keys/ui/{LEAVER}"
    assert comes(lambda: httpx.get(account, headers=headers).status_code == 200)
    assert httpx.post(f"{account}/revoke", headers=headers).status_code == 200
    assert comes(lambda: visitor.open("/usage").status_code == 401) and ENDED in visitor.text
    assert visitor.open("/batches").status_code == 401 and ENDED in visitor.text
    sent = browser.post("/batches/submit", data={"form": form["form"]}, files={"file": ("a.jsonl", b"{}")})
    assert sent.status_code == 401 and ENDED in sent.text
    page.client.cookies = browser.cookies
    assert ENDED in str(page.send("retry", [ASKED, *OPTIONS]))
    page.client.cookies.clear()
