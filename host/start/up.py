"""scripts/up with Docker: check, get images, write what is missing, start, and say how to call it."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from host import env_file, inside, preflight, stack
from host.env_file import ROOT
from host.errors import Refusal, StartFailed
from host.images import mirrors
from host.machine import Machine, look
from host.start import decide, networks, rendered, replacement, waiting

ENV = ROOT / ".env"
SECRETS = ("grafana-password",)  # the server makes API keys
TARGETS = ROOT / "monitoring/prometheus/targets/servers.yml"
KEY_COMMAND = "scripts/key show"
DRAWN = "docs/red-circle.png"


class Untouched(Exception):
    """Interrupted before anything was changed."""


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 up, 2 refused before anything was changed, 3 could not start."""
    options = parse(arguments)
    try:
        report = bring_up(options)
    except (Refusal, StartFailed) as error:
        say(f"error: {error}")
        return error.exit_status
    except Untouched:
        say("interrupted: nothing was changed, and what ran goes on")
        return 130
    except KeyboardInterrupt:
        say("interrupted; scripts/down ends what was started")
        return 130
    print(json.dumps(report) if options.json else how_to_call(report), flush=True)
    return 0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/up",
        description="Start lingbi on this machine, in containers.",
        epilog="Without containers: scripts/up --native --help",
    )
    parser.add_argument("--docker", action="store_true", help="in containers (the default where an engine is usable)")
    parser.add_argument(
        "--model",
        action="append",
        help="vl-7b, 7b, 4khd-7b, vl-1_8b, ModelScope id, demo, or a folder of this machine; several times for several, and "
        "NAME*3 for three workers of it",
    )
    parser.add_argument("--engine", choices=("auto", "turbomind", "cpu"), help="default: auto, by what is here")
    parser.add_argument("--host", help="address to publish the gateway on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to publish the gateway on (default 6006)")
    parser.add_argument("--verbose", action="store_true", help="show all lines of a build, not only its progress")
    parser.add_argument("--json", action="store_true", help="print one line of JSON last, progress to stderr")
    return parser.parse_args(arguments)


@dataclass(frozen=True)
class Decided:
    """What a start will put in place; moved: networks that exist with other subnets, and must be made anew."""

    values: dict[str, str]
    text: str
    moved: list[str]


def bring_up(options: argparse.Namespace) -> dict[str, Any]:
    start = time.monotonic()
    try:
        decided = decide_all(options)
    except KeyboardInterrupt:
        raise Untouched from None
    put_in_place(decided)
    values = decided.values
    waiting.bring_up(env_file.whole(values, "LINGBI_LOAD_TIMEOUT_S"), say)
    record = stack.record()
    write_targets(TARGETS, decide.targets(values, record.get("ports", [])))
    server = waiting.wait_answer(decide.url(values), values.get("LINGBI_GATEWAY_SERVERS", ""))
    models = record.get("models")
    return {
        "url": decide.url(values),
        "api_key_command": KEY_COMMAND,
        "model": models[0] if models else server["model"],
        **({"models": models} if models else {}),
        "engine": server["engine"],
        "seconds": round(time.monotonic() - start, 1),
    }


def decide_all(options: argparse.Namespace) -> Decided:
    """Decide everything, or refuse it; beside what runs, which stays as it is, images and weights are brought."""
    machine = replace(look(), has_secrets=has_secrets())
    preflight.check_engine(machine)
    check_not_native()
    preflight.check_writable(ROOT)
    old = ENV.read_text(encoding="utf-8") if ENV.exists() else None
    given = env_file.parse(old) if old is not None else {}
    before = given if old is not None else decide.first_values(machine)
    added = {**decide.missing_from(before), **decide.of_shell(os.environ, given, options)}
    values = {**before, **added}
    changes = {**added, **changes_of(options, values, machine)}
    values.update(changes)
    text = env_file.render(values) if old is None else env_file.changed(old, changes)
    check_all(values, machine)
    say_what(values, machine)
    return Decided(values, text, judge(text, values, options.verbose))


def has_secrets() -> bool:
    """Whether the operator's key is in a file, as version 0.1.0 made it and as a lab distributes it."""
    return (ROOT / "secrets/api-key").is_file()


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
    mirrors.check(values)
    preflight.check_compose_files(values["COMPOSE_FILE"], ROOT)
    check_place(values)
    if decide.is_on_gpus(values):
        preflight.check_gpus(values, machine, True)
        preflight.check_capability(values, machine)
        preflight.check_runtime(machine)
    preflight.check_folder(values, "LINGBI_MODEL_FOLDER", ["config.json"])
    preflight.check_folder(values, "LINGBI_TLS_FOLDER", ["certificate.pem", "key.pem"])
    preflight.check_folder(values, "LINGBI_SERVERS_FOLDER", [])
    preflight.check_secrets(values["COMPOSE_FILE"], ROOT / "secrets")
    address, port = values["LINGBI_PUBLISH_ADDRESS"], values["LINGBI_GATEWAY_PORT"]
    if not stack.is_published(address, port):
        preflight.check_port(address, port)


def check_place(values: dict[str, str]) -> None:
    """Check that project and networks are free here, or this stack's own. Raises Refusal."""
    project, subnet = rendered.project_of(values), values["LINGBI_SUBNET"]
    preflight.check_subnet(subnet)
    preflight.check_owner(project, values.get("COMPOSE_PROJECT_NAME", ""), stack.folders(project), ROOT)
    networks.check_free(subnet, project, networks.look(), networks.look_at_routes())


def say_what(values: dict[str, str], machine: Machine) -> None:
    versions = f"Docker {preflight.told(machine.engine)}, Compose {preflight.told(machine.compose)}"
    say(f"docker  {versions}; settings in {ENV}")
    say(f"engine  {decide.why_engine(values, machine)}")


def judge(text: str, values: dict[str, str], is_verbose: bool) -> list[str]:
    """Have Compose and the images check the new .env, and its weights come before a running server is replaced.

    Returns the networks that must be made anew. Raises Refusal, or StartFailed if images are missing.
    """
    found, project = rendered.configuration(text), rendered.project_of(values)
    moved = networks.moved(found["networks"], project, networks.look())
    networks.check_alone(moved, project, networks.attached_to(moved))
    stack.have_images(values, say, is_verbose)
    rendered.ask_all(found["services"], project, stack.is_running())
    if stack.is_running("server"):
        replacement.bring_weights(found, say)
    return moved


def put_in_place(decided: Decided) -> None:
    """Write what was decided. Networks cannot be changed, so a stack whose networks move is taken down."""
    own = ("database-password",) if env_file.POSTGRES in decided.values["COMPOSE_FILE"].split(":") else ()
    make_secrets(ROOT / "secrets", (*SECRETS, *own))
    if decided.moved:
        say(f"network {', '.join(decided.moved)} made anew for LINGBI_SUBNET={decided.values['LINGBI_SUBNET']}")
        stack.compose("--profile", "*", "down", "--remove-orphans", shown=False)
    env_file.write(ENV, decided.text)


def write_targets(file: Path, text: str) -> None:
    """Write Prometheus's list of servers. Another user reads it in the container, so the umask must not matter."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.parent.chmod(0o755)
    file.write_text(text, encoding="utf-8")
    file.chmod(0o644)


def make_secrets(folder: Path, names: tuple[str, ...] = SECRETS) -> None:
    """Create missing keys and passwords. The folder is private; the files are not, as the containers' user must read them."""
    env_file.private_folder(folder)
    for name in names:
        file = folder / name
        if not file.exists():
            file.write_text(f"lb-{secrets.token_urlsafe(32)}\n")
            os.chmod(str(file), 0o644)


def how_to_call(report: dict[str, Any]) -> str:
    """The text that people read at the end."""
    key = stack.show_key()
    picture = f"data:image/png;base64,'\"$(base64 -w0 {DRAWN})\"'"
    insecure = "k" if report["url"].startswith("https") else ""  # the certificate is for the public name
    return f"""
lingbi is up after {report['seconds']} s, in containers.
  page     {report['url']}
  keys     {report['url']}/admin
  API      {report['url']}/v1
  API key  {key}   ({report['api_key_command']})
  model    {', '.join(report.get('models', [report['model']]))} on {report['engine']}
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
