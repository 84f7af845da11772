"""Other websites get nothing of the page through a visitor's browser, and its cookies stay on it."""

import pytest

from lingbi_ui.logins import change
from lingbi_ui.origin import is_own, relative, with_kept_cookies
from tests.ui.conftest import running_page

ELSEWHERE = ("https://elsewhere.example", "null", "http://127.0.0.1:1", "file://", "http://127.0.0.1.elsewhere.example")
ROUTES = [
    ("GET", "/config"),
    ("GET", "/"),
    ("GET", "/state"),
    ("POST", "/gradio_api/queue/join"),
    ("GET", "/gradio_api/queue/data?session_hash=x"),
    ("POST", "/gradio_api/upload"),
    ("POST", "/gradio_api/run/predict"),
    ("POST", "/login"),
    ("OPTIONS", "/config"),
]
FORM = {"username": "a", "password": "b"}


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_another_website_is_refused_on_every_route(page, method, path):
    for origin in ELSEWHERE:
        answer = page.client.request(method, path, headers={"Origin": origin})
        assert answer.status_code == 403 and origin[:20] in answer.json()["detail"], (origin, answer.text)
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_the_page_itself_and_programs_without_a_browser_are_answered(page):
    for headers in ({}, {"Origin": page.url}, {"Origin": page.url.upper().replace("HTTP", "http")}):
        answer = page.client.get("/config", headers=headers)
        assert answer.status_code == 200 and not [name for name in answer.headers if "access-control" in name]
    assert page.client.get("/live", headers={"Origin": "https://elsewhere.example"}).status_code == 200


LINK = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_request_from_another_website_without_an_origin_is_refused(page, site):
    """As a picture, a frame, a form or a link of theirs asks."""
    for path in ("/config", "/state", "/logout", "/gradio_api/app_id", "/theme.css", "/login"):
        for more in ({}, LINK, {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}):
            answer = page.client.get(path, headers={"Sec-Fetch-Site": site} | more)
            assert answer.status_code == 403 and site in answer.json()["detail"], (path, more)
    for more in ({}, LINK | {"Sec-Fetch-Dest": "iframe"}, {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}):
        assert page.client.get("/", headers={"Sec-Fetch-Site": site} | more).status_code == 403
    assert page.client.post("/", headers={"Sec-Fetch-Site": site} | LINK).status_code == 403


def test_a_link_to_the_page_a_typed_address_and_the_page_itself_are_answered(page):
    for site in ("cross-site", "same-site", "none", "same-origin"):
        assert page.client.get("/", headers={"Sec-Fetch-Site": site} | LINK).status_code == 200, site
    for site in ("none", "same-origin"):
        assert page.client.get("/config", headers={"Sec-Fetch-Site": site}).status_code == 200
    assert page.client.get("/live", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


@pytest.mark.parametrize(
    ("location", "path"),
    [
        (b"http://elsewhere.example", b"/"),
        (b"http://elsewhere.example/lingbi?a=b", b"/lingbi?a=b"),
        (b"//elsewhere.example/x", b"/x"),
        (b"http://a//elsewhere.example", b"/elsewhere.example"),
        (b"/\\elsewhere.example", b"/elsewhere.example"),
        (b"/x", b"/x"),
    ],
)
def test_a_browser_is_sent_on_within_this_server(location, path):
    assert relative(location) == path


def test_no_redirect_names_a_host(page):
    for path in ("/logout", "/login"):
        for host in ("elsewhere.example", "a@b", "elsewhere.example:80"):
            headers = {"Host": host, "X-Forwarded-Host": host}
            found = page.client.request("GET" if path == "/logout" else "POST", path, headers=headers, data=FORM)
            assert found.status_code == 302 and found.headers["location"] == "/", found.headers


@pytest.mark.parametrize(
    ("origin", "host", "own"),
    [
        ("http://gpu.lab:6006", "gpu.lab:6006", True),
        ("https://gpu.lab", "gpu.lab", True),
        ("https://gpu.lab", "gpu.lab:443", True),
        ("http://[::1]:6006", "[::1]:6006", True),
        ("https://GPU.lab", "gpu.LAB", True),
        ("http://gpu.lab:6006", "gpu.lab:6007", False),
        ("https://gpu.lab", "gpu.lab:80", False),
        ("https://gpu.lab.example", "gpu.lab", False),
        ("https://gpu.lab@elsewhere.example", "gpu.lab", False),
        ("null", "gpu.lab", False),
        ("", "", False),
        ("https://", "", False),
        ("http://gpu.lab:99999", "gpu.lab", False),
        ("chrome-extension://abc", "abc", False),
    ],
)
def test_whose_origin_it_is(origin, host, own):
    assert is_own(origin, host) is own


def test_cookies_stay_on_the_page():
    given = [(b"set-cookie", b"a=b; HttpOnly; Path=/; SameSite=none; Secure"), (b"x", b"y")]
    ((_, plain), other), ((_, tls), _) = (list(with_kept_cookies(given, is_tls)) for is_tls in (False, True))
    assert plain == b"a=b; HttpOnly; Path=/; SameSite=Lax" and tls == plain + b"; Secure" and other == (b"x", b"y")


def test_a_logins_cookies_are_lax_and_secure_under_tls(fake_api, tmp_path):
    password = change(tmp_path / "logins", "add", "alice")
    with running_page(tmp_path, fake_api.url, LOGIN_FILE=tmp_path / "logins") as page:
        for proto in ("http", "https"):
            form = {"username": "alice", "password": password}
            answer = page.client.post("/login", data=form, headers={"X-Forwarded-Proto": proto})
            cookies = answer.headers.get_list("set-cookie")
            assert answer.status_code == 200 and len(cookies) == 2
            cookies += page.client.get("/logout", headers={"X-Forwarded-Proto": proto}).headers.get_list("set-cookie")
            assert len(cookies) == 4
            for cookie in cookies:
                assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and ("Secure" in cookie) == (proto == "https")
