"""A server that was started here is asked whatever name its certificate holds; one that a URL names, by that URL's own."""

import argparse
import asyncio
import json

import pytest

from lingbi.client.servers import NoServer, find_server, need_server
from lingbi.errors import ConfigurationError
from lingbi.settings import Settings
from tests.server.client.conftest import answering, issue, serving


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "api-key").write_text("lb-secret\n")
    return Settings(state_dir=tmp_path)


@pytest.fixture
def url(authority, tmp_path):
    with serving(issue(authority, tmp_path, "DNS:lab.example")) as url:
        yield url


def options(url: str | None = None, **values) -> argparse.Namespace:
    return argparse.Namespace(**{"url": url, "api_key_file": None, "model": None, "engine": None} | values)


def record(settings, url: str, ca_file) -> None:
    """As scripts/up writes what it has started."""
    (settings.state_dir / "run").mkdir()
    told = {"url": url, "api_key_file": str(settings.state_dir / "api-key"), "ca_file": str(ca_file)}
    (settings.state_dir / "run/server.json").write_text(json.dumps(told))


def test_what_was_started_here_may_hold_any_name(authority, settings, url):
    record(settings, url + "/v1", authority / "ca.pem")
    server = need_server(options(), settings)
    assert (server.url, server.key, server.model) == (url, "lb-secret", "served")
    assert find_server(options(model="served"), settings) == server
    assert find_server(options(model="another"), settings) is None

    async def status() -> int:
        async with server.async_client() as client:
            return (await client.get("/v1/models")).status_code

    assert asyncio.run(status()) == 200


def test_a_url_is_verified_by_its_own_name(authority, settings, url, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
    with pytest.raises(NoServer, match="certificate"):
        need_server(options(url), settings)


def test_where_nothing_was_started_the_remedy_is_named(settings):
    with pytest.raises(ConfigurationError, match="run scripts/up, or give --url"):
        need_server(options(), settings)
    assert find_server(options(), settings) is None


def test_a_server_that_refuses_the_key_is_told_in_its_own_words(settings):
    refused = {"error": {"message": "this API key is unknown", "code": "invalid_api_key"}}
    with answering(401, refused) as url, pytest.raises(NoServer) as caught:
        need_server(options(url), settings)
    assert str(caught.value) == f"{url} does not list its models: this API key is unknown"
