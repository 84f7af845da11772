"""The pages of accounts in the page's own server: its guard, its cookies, and a path of a proxy's."""

import re

from lingbi_ui.accounts.entry import COOKIE, FORM_COOKIE
from tests.ui.accounts.conftest import Administrator
from tests.ui.accounts.test_admin import SENT, SHOWN

LINK = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "cross-site"}


def test_another_website_sends_no_form_and_reads_no_page(browser):
    foreign = {"Origin": "https://elsewhere.example"}
    for method, paths in (("GET", (*SHOWN, "/admin/login", "/usage")), ("POST", (*SENT, "/admin/login"))):
        for path in paths:
            assert browser.request(method, path, headers=foreign).status_code == 403, path
            embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
            assert browser.request(method, path, headers=embedded).status_code == 403, path
    for path in ("/admin", "/admin/login", "/usage"):
        assert browser.get(path, headers=LINK).status_code in (200, 303), "a link may lead here"
    assert browser.get("/admin/usage.csv", headers=LINK).status_code == 403


def test_cookies_of_administrators_stay_here(browser, api):
    for scheme, prefix in (("http", ""), ("https", "/lingbi")):
        sent = {
            "X-Forwarded-Proto": scheme,
            "X-Forwarded-Prefix": prefix,
            "Origin": browser.base_url.copy_with(path="/").__str__()[:-1],
        }
        browser.cookies.clear()
        shown = browser.get("/admin/login", headers=sent)
        form = re.search(r'name="form" value="([^"]+)"', shown.text)[1]
        cookie = {"Cookie": f"{FORM_COOKIE}={form}"}
        answer = browser.post("/admin/login", data={"form": form, "key": api[1]}, headers=sent | cookie)
        assert answer.status_code == 303 and answer.headers["location"] == f"{prefix}/admin"
        for found in (shown.headers["set-cookie"], answer.headers["set-cookie"]):
            assert "HttpOnly" in found and "SameSite=Strict" in found and f"Path={prefix}/admin;" in found, found
            assert ("Secure" in found) == (scheme == "https")
        assert api[1] not in str(answer.headers)
        token = re.search(rf"{COOKIE}=([\w-]+)", answer.headers["set-cookie"])[1]
        page = browser.get("/admin/keys", headers=sent | {"Cookie": f"{COOKIE}={token}"})
        assert page.status_code == 200
        assert all(link.startswith(f"{prefix}/") for link in re.findall(r'(?:href|action)="(/[^"]*)"', page.text))


def test_what_is_no_form_of_these_pages_is_refused_before_it_is_read(browser):
    for path in ("/admin/login", *SENT):
        assert browser.post(path, content=b"x" * (16 * 1024 + 1)).status_code == 413, path
    for method, path in (("POST", "/admin"), ("PUT", "/admin/keys"), ("GET", "/admin/key/end"), ("DELETE", "/usage")):
        assert browser.request(method, path).status_code == 405, path
    for path in ("/admin/x", "/admin/keys/", "/admin/templates/base.html", "/usage/x", "/administrator"):
        assert browser.get(path).status_code == 404, path
    assert browser.get("/admin/").headers["location"] == "/admin"
    assert browser.get("/admin/look.css").headers["content-type"].startswith("text/css")


def test_a_pages_log_has_no_key(guarded, browser, api):
    admin = Administrator(browser)
    admin.log_in(api[1])
    admin.open("/admin/keys")
    admin.send("/admin/keys", {"name": "unlogged"})
    key = admin.new_key()
    log = guarded[0].log.read_text()
    assert key not in log and api[1] not in log and "/admin" not in log


def test_without_logins_there_is_no_use_of_ones_own(page):
    answer = page.client.get("/usage")
    assert answer.status_code == 404 and "asks nobody for a login" in answer.text
    assert page.client.get("/admin").status_code == 303, "administrators have their own login"
