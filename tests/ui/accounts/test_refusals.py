"""What the API refuses to visitors with a login, and that it is away, are two sentences on /usage and /batches."""

from types import SimpleNamespace

import pytest

from tests.ui.accounts.conftest import administrator
from tests.ui.conftest import FakeApi

LOGINS = SimpleNamespace(name_in=lambda scope: "alice")


@pytest.fixture(scope="module")
def fake():
    api = FakeApi()
    yield api
    api.stop()


@pytest.mark.parametrize("path", ["/usage", "/batches"])
@pytest.mark.parametrize(
    ("status", "code", "told", "chinese"),
    [
        (401, "visitor_ended", "Your account on this page has ended", "你在本网页的账户已失效"),
        (401, "invalid_api_key", "The page's own API key is not accepted", "网页使用的 API 密钥无效"),
        (403, "permission_denied", "The server refused this: its own words", "服务器拒绝了此操作"),
        (503, "not_ready", "The API cannot be reached right now", "暂时连接不到 API"),
    ],
)
def test_why_a_visitor_is_shown_nothing(fake, path, status, code, told, chinese):
    fake.refused_get = status, {"error": {"message": "its own words", "type": "x", "param": None, "code": code}}
    with administrator(fake.url, logins=LOGINS) as visitor:
        assert visitor.open(path).status_code == status and told in visitor.text, visitor.text
        visitor.open(path, headers={"Accept-Language": "zh-CN"})
        assert chinese in visitor.text, visitor.text
