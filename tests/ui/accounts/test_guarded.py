"""The pages of accounts in the page's own server: its guard, its cookies, and a path of a proxy's."""

import re

from lingbi_ui.accounts.entry import BATCHES, COOKIE, FORM_COOKIE
from tests.ui.accounts.conftest import Administrator
from tests.ui.accounts.test_admin import SENT, SHOWN
from tests.ui.accounts.test_batches import SENT as SENT_OF_BATCHES
from tests.ui.accounts.test_batches import SHOWN as SHOWN_OF_BATCHES

LINK = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "cross-site"}


def test_another_website_sends_no_form_and_reads_no_page(browser):
    foreign = {"Origin": "https://elsewhere.example"}
    shown = (*SHOWN, *SHOWN_OF_BATCHES, "/admin/login", "/batches/login", "/usage")
    sent = (*SENT, *SENT_OF_BATCHES, "/admin/login", "/batches/login")
    for method, paths in (("GET", shown), ("POST", sent)):
        for path in paths:
            assert browser.request(method, path, headers=foreign).status_code == 403, path
            embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
            assert browser.request(method, path, headers=embedded).status_code == 403, path
    for path in ("/admin", "/admin/login", "/batches", "/batches/login", "/usage"):
        assert browser.get(path, headers=LINK).status_code in (200, 303), "a link may lead here"
    for path in ("/admin/usage.csv", *SHOWN_OF_BATCHES[1:]):
        assert browser.get(path, headers=LINK).status_code == 403, path


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
        both = answer.headers.get_list("set-cookie")
        assert [one.partition("=")[0] for one in both] == [COOKIE, BATCHES.cookie]
        for found, root in ((shown.headers["set-cookie"], "/admin"), (both[0], "/admin"), (both[1], "/batches")):
            assert "HttpOnly" in found and "SameSite=Strict" in found and f"Path={prefix}{root};" in found, found
            assert ("Secure" in found) == (scheme == "https")
        assert api[1] not in str(answer.headers)
        token = re.search(rf"{COOKIE}=([\w-]+)", both[0])[1]
        page = browser.get("/admin/keys", headers=sent | {"Cookie": f"{COOKIE}={token}"})
        assert page.status_code == 200
        assert all(link.startswith(f"{prefix}/") for link in re.findall(r'(?:href|action)="(/[^"]*)"', page.text))


def test_what_is_no_form_of_these_pages_is_refused_before_it_is_read(browser):
    for path in ("/admin/login", *SENT, "/batches/login", *SENT_OF_BATCHES[:2]):
        assert browser.post(path, content=b"x" * (16 * 1024 + 1)).status_code == 413, path
    others = (("POST", "/admin"), ("PUT", "/admin/keys"), ("GET", "/admin/key/end"), ("DELETE", "/usage"))
    for method, path in (*others, ("POST", "/batches"), ("HEAD", "/batches/file"), ("GET", "/batches/submit")):
        assert browser.request(method, path).status_code == 405, path
    for path in (
        "/admin/x",
        "/admin/keys/",
        "/admin/templates/base.html",
        "/usage/x",
        "/administrator",
        "/batches/x",
        "/batches/batch/",
    ):
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
