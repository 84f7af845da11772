"""An administrator at the pages of accounts, as a browser would be, before the real API."""

import contextlib
import html
import re

import httpx
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from lingbi_ui.accounts.routes import routes
from lingbi_ui.accounts.sessions import Sessions
from lingbi_ui.logins import change
from lingbi_ui.settings import Settings
from tests.conftest import free_port
from tests.ui.conftest import running_page

LOGINS = ("carol", "王伟")  # others than those of other tests, which use the same server
LEAVER = "leaver"  # whose account a test ends


class Administrator:
    """A browser without JavaScript at /admin: it keeps cookies, follows links and sends forms as they stand in pages."""

    def __init__(self, client: httpx.Client):
        self.client, self.page = client, None

    def open(self, path: str, **options) -> httpx.Response:
        self.page = self.client.get(path, follow_redirects=True, **options)
        return self.page

    def send(self, action: str, values: dict | None = None, **options) -> httpx.Response:
        """The form of the page that is open, with these values in place of its own."""
        fields = self.form(action) | (values or {})
        self.page = self.client.post(action, data=fields, follow_redirects=True, **options)
        return self.page

    def form(self, action: str) -> dict:
        """{name: value} of the fields of a form."""
        found = re.search(rf'<form[^>]*method="post"[^>]*action="{re.escape(action)}".*?</form>', self.page.text, re.S)
        assert found, f"no form {action} in {self.page.text}"
        fields = {}
        for tag in re.findall(r"<input[^>]*>", found[0]):
            given = dict(re.findall(r'(\w+)="([^"]*)"', tag))
            if given.get("type") != "checkbox":
                fields[html.unescape(given["name"])] = html.unescape(given.get("value", ""))
        for name, options in re.findall(r'<select name="(\w+)">(.*?)</select>', found[0], re.S):
            forms = (r"<option[^>]*selected>([^<]*)<", r'<option value="()"', r"<option>([^<]*)<")
            chosen = next(filter(None, (re.search(form, options) for form in forms)))
            fields[name] = html.unescape(chosen[1])
        return fields

    def log_in(self, key: str) -> httpx.Response:
        self.open("/admin/login")
        return self.send("/admin/login", {"key": key})

    @property
    def text(self) -> str:
        return html.unescape(re.sub(r"<[^>]+>", " ", self.page.text))

    def new_key(self) -> str:
        """The key that the page shows once."""
        (found,) = re.findall(r'readonly value="(lb-[\w-]+)"', self.page.text)
        return found


@contextlib.contextmanager
def administrator(api_url: str, sessions: Sessions | None = None, logins=None, **settings):
    """An administrator at the pages alone, without Gradio and its guard, before this API."""
    known = routes(Settings(api_url=api_url, **settings), logins, sessions)
    with TestClient(Starlette(routes=known), base_url="http://page.example") as client:
        yield Administrator(client)


@pytest.fixture(scope="session")
def api(demo_stack):
    """The real server, where the page asks it: the URL of the gateway's inner port, and the operator's key."""
    return f"http://127.0.0.1:{demo_stack['ports']['LINGBI_GATEWAY_INNER_PORT']}", demo_stack["key"]


@pytest.fixture
def admin(api):
    """An administrator who is logged in."""
    url, key = api
    with administrator(url) as found:
        assert found.log_in(key).status_code == 200, found.page.text
        yield found


@pytest.fixture(scope="session")
def nobody_url():
    """Where no API is."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture(scope="session")
def guarded(api, demo_stack, tmp_path_factory):
    """The page before the real server, with its logins; their passwords by name."""
    folder = tmp_path_factory.mktemp("guarded")
    passwords = {name: change(folder / "logins", "add", name) for name in (*LOGINS, LEAVER)}
    key = demo_stack["state_dir"] / "ui-key"
    with running_page(folder, api[0], LOGIN_FILE=folder / "logins", API_KEY_FILE=key) as page:
        yield page, passwords


@pytest.fixture
def browser(guarded):
    with httpx.Client(base_url=guarded[0].url, timeout=30) as client:
        yield client
