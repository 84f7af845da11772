"""scripts/smoke: prove that a running server answers correctly, or say which check failed.

With the demo model, answers are judged by what the image shows; with other models, a question about an
image must give a well-formed answer with the exact number of prompt tokens. Behind a gateway before several models, each
of them is asked by its name.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from lingbi.client.addresses import base_url, key_in, record_file
from lingbi.client.certificate import verify_by_held_name
from lingbi.errors import ConfigurationError, LingbiError
from lingbi.smoke import edge_checks, form_checks  # noqa: F401 - the imports add their checks
from lingbi.smoke.checks import CHECKS, Check, CheckFailed, Target

GATEWAY_HEALTH = "/healthz"
# What a rollout waits for before a server gets requests again; the other checks run afterwards.
CORE = ("ready", "key-required", "picture", "prompt-tokens", "describe-zh")
READY_POLL_S = 0.2
READY_ANSWER_S = 5
TIMEOUT_S = 300  # a question about an image takes minutes on the CPU engine with the 1.8B model


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 all checks passed, 1 a check failed, 2 the checks could not run."""
    options = parse(arguments)
    try:
        if options.wait_ready and (fault := wait_ready(options)):
            print(f"FAIL  ready: not within {options.wait_ready:g} s: {fault}", file=sys.stderr)
            return 1
        targets = find_targets(options)
    except LingbiError as error:
        print(f"error: {error}", file=sys.stderr)
        return ConfigurationError.exit_status
    chosen = [check for check in CHECKS if not options.core or check.name in CORE]
    results = [run_check(check, target) for target in targets for check in chosen if check.applies(target)]
    failed = [result for result in results if not result["passed"]]
    url, names = targets[0].url, ", ".join(target.model for target in targets)
    if not options.json:
        print(f"{len(results) - len(failed)} passed, {len(failed)} failed: {url}, model {names}")
    else:
        print(json.dumps({"url": url, "model": names, "checks": results}, ensure_ascii=False))
    return 1 if failed else 0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/smoke", description="Check a running lingbi server.")
    parser.add_argument("url", nargs="?", help="base URL (default: what scripts/up started)")
    parser.add_argument("--api-key-file", type=Path, help="file with the API key in its first line")
    parser.add_argument("--ca-file", help="CA certificate that signed the server's, if the system does not trust it")
    parser.add_argument("--held-name", action="store_true", help="verify the certificate under a name that it holds")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, help="longest wait for one answer, seconds")
    parser.add_argument("--wait-ready", type=float, default=0, metavar="S", help="first wait up to S s for /ready")
    parser.add_argument("--core", action="store_true", help=f"only the checks {', '.join(CORE)}")
    parser.add_argument("--json", action="store_true", help="print one line of JSON last, progress to stderr")
    options = parser.parse_args(arguments)
    if options.wait_ready and not options.url:
        parser.error("--wait-ready needs the URL of the server")
    return options


def wait_ready(options: argparse.Namespace) -> str:
    """Wait until the server says that it is ready; returns "", or its last answer if it was not ready in time."""
    deadline = time.monotonic() + options.wait_ready
    url = f"{base_url(options.url)}/ready"
    with make_client(base_url(options.url), READY_ANSWER_S, options.ca_file, options.held_name) as client:
        while True:
            try:
                response = client.get(url)
                if response.status_code == 200:
                    return ""
                fault = f"status {response.status_code}: {response.text[:300]}"
            except httpx.HTTPError as error:
                fault = f"{type(error).__name__}: {error}"
            if time.monotonic() > deadline:
                return fault
            time.sleep(READY_POLL_S)


def find_targets(options: argparse.Namespace) -> list[Target]:
    """The server to check, once for each of its models; at least one. Raises ConfigurationError if there is none."""
    url, key_file, ca_file = options.url, options.api_key_file, options.ca_file
    by_held_name = options.held_name or not url  # what runs here may have any name
    if not url:
        report = started_here()
        url, ca_file = report["url"], ca_file or report.get("ca_file")
        key_file = key_file or Path(report["api_key_file"])
    elif not key_file:
        from lingbi.settings import load_settings

        key_file = load_settings().key_file()
    key, url = key_in(key_file), base_url(url)
    client = make_client(url, options.timeout, ca_file, by_held_name)
    names, has_gateway = served_models(client, key), is_gateway(client)
    return [
        Target(url, client, key, name, has_gateway, tuple(other for other in names if other != name), name == names[0])
        for name in names
    ]


def started_here() -> dict[str, Any]:
    """The record of the server that scripts/up started. Raises ConfigurationError if there is none."""
    # Imported only here: with a URL on the command line, nobody has to wait for this import.
    from lingbi.settings import load_settings

    record = record_file(load_settings().state_dir)
    if not record.exists():
        raise ConfigurationError(f"nothing was started here ({record} is not there); run scripts/up, or give a URL")
    report: dict[str, Any] = json.loads(record.read_text())
    return report


def make_client(url: str, timeout_s: float, ca_file: str | Path | None, by_held_name: bool) -> httpx.Client:
    """A client for this base URL. Raises ConfigurationError for a URL or certificate that cannot be used."""
    if ca_file and not Path(ca_file).is_file():
        raise ConfigurationError(f"certificate {ca_file} is not there; give the server's own in --ca-file")
    try:
        trusted = str(ca_file) if ca_file else None
        client = httpx.Client(base_url=url, timeout=timeout_s, trust_env=False, verify=trusted or True)
        if by_held_name:
            verify_by_held_name(client, trusted)
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"{url!r} is no URL ({error}); give one as http://host:6006") from None
    except OSError as error:
        raise ConfigurationError(f"certificate {ca_file} cannot be used ({error}); give the server's own") from None
    if client.base_url.scheme not in ("http", "https") or not client.base_url.host:
        raise ConfigurationError(f"{url!r} is no http(s) URL; give one as http://host:6006")
    return client


def is_gateway(client: httpx.Client) -> bool:
    """Whether a gateway is in front: a server by itself does not know this path."""
    return client.get(GATEWAY_HEALTH).status_code == 200


def served_model(client: httpx.Client, key: str | None) -> str:
    """The first of a server's models. Raises ConfigurationError if no lingbi server answers."""
    return served_models(client, key)[0]


def served_models(client: httpx.Client, key: str | None) -> list[str]:
    """Names of a server's models; at least one. Raises ConfigurationError if no lingbi server answers."""
    try:
        response = client.get("/v1/models", headers={"Authorization": f"Bearer {key}"} if key else {})
        response.raise_for_status()
        listed = response.json()["data"]
        return [str(item["id"]) for item in (listed[0], *listed[1:])]  # none is no lingbi server
    except httpx.HTTPStatusError as error:
        raise ConfigurationError(
            f"{error.request.url} answered {error.response.status_code}: {error.response.text[:200]}"
        ) from None
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        raise ConfigurationError(
            f"no lingbi server answers at {client.base_url}: {type(error).__name__} {error}"
        ) from None


def run_check(check: Check, target: Target) -> dict[str, Any]:
    start = time.monotonic()
    try:
        detail, passed = check.run(target), True
    except (CheckFailed, httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError) as error:
        detail, passed = f"{error}" if isinstance(error, CheckFailed) else f"{type(error).__name__}: {error}", False
    result = {
        "name": check.name,
        "passed": passed,
        "seconds": round(time.monotonic() - start, 2),
        "detail": detail,
    }
    if target.others:
        result["model"] = target.model
    name = f"{check.name} {target.model}" if target.others else check.name
    print(
        f"{'PASS' if passed else 'FAIL'}  {name:<18} {result['seconds']:>6.2f} s  {detail}",
        file=sys.stderr,
        flush=True,
    )
    return result
