"""Finds the server that a command asks: the one of --url, or what runs here."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import httpx

from lingbi.errors import ConfigurationError
from lingbi.launch.addresses import base_url, key_in, record_file
from lingbi.settings import Settings

LOOK_S = 5


@dataclass(frozen=True)
class Server:
    """A server that answers: base URL without /v1, key, the model to ask, and its CA's certificate if it needs one."""

    url: str
    key: str
    model: str
    ca_file: str | None = None


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """The options that name a server."""
    parser.add_argument("--url", help="base URL of a server (default: what scripts/up started, if it runs)")
    parser.add_argument("--api-key-file", type=Path, help="file with the API key of that server in its first line")


def need_server(options: argparse.Namespace, settings: Settings) -> Server:
    """The server of --url, or what was started here. Raises ConfigurationError where none answers."""
    if options.url:
        return _at(options.url, options.api_key_file or settings.key_file(), None, None)
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
        return _at(options.url, options.api_key_file or settings.key_file(), None, options.model)
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
    return _at(told["url"], options.api_key_file or told["api_key_file"], told.get("ca_file"), model)


class NoServer(ConfigurationError):
    """No server answers there, or it serves other models."""


def _at(url: str, key_file: str | Path, ca_file: str | None, model: str | None) -> Server:
    """The server at a URL, which must answer, and serve the model if one is named. Raises NoServer, ConfigurationError."""
    url, key = base_url(url), key_in(Path(key_file))
    try:
        with httpx.Client(base_url=url, timeout=LOOK_S, trust_env=False, verify=ca_file or True) as client:
            response = client.get("/v1/models", headers={"Authorization": f"Bearer {key}"})
            response.raise_for_status()
            served = [str(item["id"]) for item in response.json()["data"]]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError) as error:
        raise NoServer(f"no lingbi server answers at {url}: {type(error).__name__}: {error}") from None
    if not served or (model and model not in served):
        raise NoServer(f"{url} serves {', '.join(served) or 'nothing'}, not {model!r}; give one of them in --model")
    return Server(url, key, model or served[0], ca_file)


def message_of(response: httpx.Response) -> str:
    """Why a server refuses, in its own words."""
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return f"status {response.status_code}: {response.text[:200]}"
