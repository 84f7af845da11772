"""scripts/up with Docker: check, get images, write what is missing, start, and say how to call it."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any

from host import decide, env_file, inside, preflight, rendered, stack, waiting
from host.env_file import ROOT
from host.errors import Refusal, StartFailed
from host.machine import Machine, look

ENV = ROOT / ".env"
SECRETS = ("api-key", "ui-key", "grafana-password")
TARGETS = ROOT / "monitoring/prometheus/targets/servers.yml"
DRAWN = "docs/red-circle.png"


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 up, 2 refused before anything was changed, 3 could not start."""
    options = parse(arguments)
    try:
        report = bring_up(options)
    except (Refusal, StartFailed) as error:
        say(f"error: {error}")
        return error.exit_status
    except KeyboardInterrupt:
        say("interrupted; scripts/down ends what was started")
        return 130
    print(json.dumps(report) if options.json else how_to_call(report), flush=True)
    return 0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/up", description="Start lingbi on this machine, in containers.")
    parser.add_argument("--docker", action="store_true", help="in containers (the default where an engine is usable)")
    parser.add_argument("--model", help="vl-7b, 7b, 4khd-7b, vl-1_8b, ModelScope id, demo, or a folder of this machine")
    parser.add_argument("--engine", choices=("auto", "turbomind", "cpu"), help="default: auto, by what is here")
    parser.add_argument("--host", help="address to publish the gateway on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to publish the gateway on (default 6006)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON last, progress to stderr")
    return parser.parse_args(arguments)


def bring_up(options: argparse.Namespace) -> dict[str, Any]:
    start = time.monotonic()
    machine = look()
    preflight.check_engine(machine)
    check_not_native()
    old = ENV.read_text(encoding="utf-8") if ENV.exists() else None
    before = env_file.parse(old) if old is not None else decide.first_values(machine)
    missing = decide.missing_from(before)
    values = {**before, **missing}
    changes = {**missing, **changes_of(options, values, machine)}
    values.update(changes)
    text = env_file.render(values) if old is None else env_file.changed(old, changes)
    check_all(values, machine)
    say_what(values, machine)
    judge(text, values)
    put_in_place(text, values)
    waiting.bring_up(env_file.whole(values, "LINGBI_LOAD_TIMEOUT_S"), say)
    server = waiting.wait_answer(decide.url(values), values["LINGBI_GATEWAY_SERVERS"])
    return {
        "url": decide.url(values),
        "api_key_file": str(ROOT / "secrets/api-key"),
        "model": server["model"],
        "engine": server["engine"],
        "seconds": round(time.monotonic() - start, 1),
    }


def changes_of(options: argparse.Namespace, values: dict[str, str], machine: Machine) -> dict[str, str]:
    """The changes that the command line asks for, after checking the number of workers. Raises Refusal."""
    env_file.whole(values, "LINGBI_WORKERS")
    return decide.asked_for(options, values, machine)


def check_not_native() -> None:
    """Raise Refusal if a native server runs here: both would need the same ports and GPUs."""
    if inside.is_native_running():
        raise Refusal("lingbi runs natively here; end it first (scripts/down), or stay with it (scripts/up --native)")


def check_all(values: dict[str, str], machine: Machine) -> None:
    """Check everything that can be checked without an image. Raises Refusal."""
    env_file.check(values, env_file.known_names())
    preflight.check_subnet(values["LINGBI_SUBNET"])
    if decide.is_on_gpus(values):
        preflight.check_gpus(values, machine, True)
        preflight.check_runtime(machine)
    preflight.check_folder(values, "LINGBI_MODEL_FOLDER", ["config.json"])
    preflight.check_folder(values, "LINGBI_TLS_FOLDER", ["certificate.pem", "key.pem"])
    preflight.check_secrets(values["COMPOSE_FILE"], ROOT / "secrets")
    address, port = values["LINGBI_PUBLISH_ADDRESS"], values["LINGBI_GATEWAY_PORT"]
    if not (ENV.exists() and stack.is_published(address, port)):
        preflight.check_port(address, port)


def say_what(values: dict[str, str], machine: Machine) -> None:
    versions = f"Docker {preflight.told(machine.engine)}, Compose {preflight.told(machine.compose)}"
    say(f"docker  {versions}; settings in {ENV}")
    say(f"engine  {decide.why_engine(values, machine)}")


def judge(text: str, values: dict[str, str]) -> None:
    """Have Compose and the images check the new .env. Raises Refusal, or StartFailed if images are missing."""
    found = rendered.services(text)
    stack.have_images(values, say)
    rendered.ask_all(found, rendered.project_of(values), stack.is_running())


def put_in_place(text: str, values: dict[str, str]) -> None:
    env_file.write(ENV, text)
    make_secrets(ROOT / "secrets")
    write_targets(TARGETS, decide.targets(values))


def write_targets(file: Path, text: str) -> None:
    """Write Prometheus's list of servers. Another user reads it in the container, so the umask must not matter."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.parent.chmod(0o755)
    file.write_text(text, encoding="utf-8")
    file.chmod(0o644)


def make_secrets(folder: Path) -> None:
    """Create missing keys. The folder is private; the files are not, as the containers' user must read them."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for name in SECRETS:
        file = folder / name
        if not file.exists():
            file.write_text(f"lb-{secrets.token_urlsafe(32)}\n")
            os.chmod(str(file), 0o644)


def how_to_call(report: dict[str, Any]) -> str:
    """The text that people read at the end."""
    key = Path(report["api_key_file"]).read_text().split()[0]
    picture = f"data:image/png;base64,'\"$(base64 -w0 {DRAWN})\"'"
    insecure = "k" if report["url"].startswith("https") else ""  # the certificate is for the public name
    return f"""
lingbi is up after {report['seconds']} s, in containers.
  page     {report['url']}
  API      {report['url']}/v1
  API key  {key}   (in {report['api_key_file']})
  model    {report['model']} on {report['engine']}
Ask it about a picture (paste these lines):

URL={report['url']} KEY={key}
curl -s{insecure} $URL/v1/chat/completions -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' \\
  -d '{{"model": "{report['model']}", "messages": [{{"role": "user", "content": [
        {{"type": "text", "text": "请描述图中内容"}},
        {{"type": "image_url", "image_url": {{"url": "{picture}"}}}}]}}]}}'

scripts/smoke checks it, scripts/down ends it; `docker compose logs -f` shows what it says."""


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
