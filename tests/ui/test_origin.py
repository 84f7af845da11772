"""Other websites get nothing of the page through a visitor's browser, and its cookies stay on it."""

import pytest

from lingbi_ui.logins import change
from lingbi_ui.origin import is_own, with_kept_cookies
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
            for cookie in cookies:
                assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and ("Secure" in cookie) == (proto == "https")
