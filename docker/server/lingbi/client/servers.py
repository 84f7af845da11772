"""Finds the server that a command asks: the one of --url, or what runs here."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from lingbi.client.addresses import base_url, key_in, record_file
from lingbi.client.certificate import verify_by_held_name
from lingbi.errors import ConfigurationError
from lingbi.settings import Settings

LOOK_S = 5


@dataclass(frozen=True)
class Server:
    """A server that answers: base URL without /v1, key, the model to ask, and its CA's certificate if it needs one.

    is_ours: whether it was started here; its certificate may hold any name then.
    """

    url: str
    key: str
    model: str
    ca_file: str | None = None
    is_ours: bool = False

    def client(self, **options: Any) -> httpx.Client:
        """A client that asks with the key; options: those of httpx.Client."""
        client = httpx.Client(**self._options(), **options)
        if self.is_ours:
            verify_by_held_name(client, self.ca_file)
        return client

    def async_client(self, **options: Any) -> httpx.AsyncClient:
        """The same for an event loop."""
        client = httpx.AsyncClient(**self._options(), **options)
        if self.is_ours:
            verify_by_held_name(client, self.ca_file)
        return client

    def _options(self) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.key}"}
        return {"base_url": self.url, "headers": headers, "trust_env": False, "verify": self.ca_file or True}


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """The options that name a server."""
    parser.add_argument("--url", help="base URL of a server (default: what scripts/up started, if it runs)")
    parser.add_argument("--api-key-file", type=Path, help="file with the API key of that server in its first line")


def need_server(options: argparse.Namespace, settings: Settings) -> Server:
    """The server of --url, or what was started here. Raises ConfigurationError where none answers."""
    if options.url:
        return _answering(_named(options, settings), None)
    if server := _started(options, settings, None):
        return server
    raise ConfigurationError(
        f"nothing was started here ({record_file(settings.state_dir)} is not there); run scripts/up, or give --url"
    )


def find_server(options: argparse.Namespace, settings: Settings) -> Server | None:
    """The server of --url, or what was started here and serves the model that is asked for; None: there is none.

    Raises ConfigurationError for a URL that does not answer, or serves other models.
    """
    if options.url:
        return _answering(_named(options, settings), options.model)
    try:
        return None if options.engine else _started(options, settings, options.model)
    except NoServer:
        return None


def _started(options: argparse.Namespace, settings: Settings, model: str | None) -> Server | None:
    """What was started here; None where nothing was. Raises NoServer, ConfigurationError."""
    record = record_file(settings.state_dir)
    if not record.exists():
        return None
    told = json.loads(record.read_text())
    key = key_in(Path(options.api_key_file or told["api_key_file"]))
    return _answering(Server(base_url(told["url"]), key, "", told.get("ca_file"), is_ours=True), model)


def _named(options: argparse.Namespace, settings: Settings) -> Server:
    """The server of --url, whose model is not known yet."""
    return Server(base_url(options.url), key_in(options.api_key_file or settings.key_file()), "")


class NoServer(ConfigurationError):
    """No server answers there, or it serves other models."""


def _answering(server: Server, model: str | None) -> Server:
    """The server with its model: it must answer, and serve the model if one is named. Raises NoServer, ConfigurationError."""
    try:
        with server.client(timeout=LOOK_S) as client:
            response = client.get("/v1/models")
            if response.is_error:
                raise NoServer(f"{server.url} does not list its models: {message_of(response)}")
            served = [str(item["id"]) for item in response.json()["data"]]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError) as error:
        raise NoServer(f"no lingbi server answers at {server.url}: {type(error).__name__}: {error}") from None
    if not served or (model and model not in served):
        raise NoServer(
            f"{server.url} serves {', '.join(served) or 'nothing'}, not {model!r}; give one of them in --model"
        )
    return replace(server, model=model or served[0])


def message_of(response: httpx.Response) -> str:
    """Why a server refuses, in its own words."""
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return f"status {response.status_code}: {response.text[:200]}"
