"""scripts/up with Docker: check, write what is missing, have the images, start, say how to call it."""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import sys
import time
from pathlib import Path

from host import env_file, preflight, stack
from host.env_file import ROOT
from host.errors import Refusal, StartFailed
from host.machine import Machine, look

ENV = ROOT / ".env"
SECRETS = ("api-key", "ui-key", "grafana-password")
TARGETS = ROOT / "monitoring/prometheus/targets/servers.yml"
DRAWN = "docs/red-circle.png"


def main(arguments=None) -> int:
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


def parse(arguments=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/up", description="Start lingbi on this machine, in containers.")
    parser.add_argument("--docker", action="store_true", help="in containers (the default where an engine is usable)")
    parser.add_argument("--model", help="vl-7b, 7b, 4khd-7b, vl-1_8b, ModelScope id, demo, or a folder of this machine")
    parser.add_argument("--engine", choices=("auto", "turbomind", "cpu"), help="default: auto, by what is here")
    parser.add_argument("--host", help="address to publish the gateway on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to publish the gateway on (default 6006)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON last, progress to stderr")
    return parser.parse_args(arguments)


def bring_up(options: argparse.Namespace) -> dict:
    start = time.monotonic()
    machine = look()
    preflight.check_engine(machine)
    old = ENV.read_text(encoding="utf-8") if ENV.exists() else None
    before = env_file.parse(old) if old is not None else first_values(machine)
    changes = {**missing_from(before), **asked_for(options, before, machine)}
    values = {**before, **changes}
    check_all(values, machine)
    say(
        f"engine  Docker {preflight.told(machine.engine)}, Compose {preflight.told(machine.compose)}; settings in {ENV}"
    )
    env_file.write(ENV, env_file.render(values) if old is None else env_file.changed(old, changes))
    make_secrets(ROOT / "secrets")
    TARGETS.parent.mkdir(parents=True, exist_ok=True)
    TARGETS.write_text(targets(values), encoding="utf-8")
    stack.have_images(values, say)
    if not stack.is_running():
        stack.ask_doctor(stack.doctor_command(values, ENV, gpu_options(values)))
    if stack.compose("up", "--detach", "--wait", "--no-build", "--remove-orphans").returncode:
        raise StartFailed(f"the containers did not come up; the end of their logs:\n{stack.log_tail()}")
    return {
        "url": url(values),
        "api_key_file": str(ROOT / "secrets/api-key"),
        "seconds": round(time.monotonic() - start, 1),
    }


def missing_from(values: dict[str, str]) -> dict[str, str]:
    """Settings that a newer version has and an older .env has not, as they come."""
    names = {f"LINGBI_{setting.name}": setting.default for setting in env_file.deployment_settings()}
    return {name: default for name, default in names.items() if default is not None and name not in values}


def first_values(machine: Machine) -> dict[str, str]:
    """The values of a first .env."""
    values = missing_from({})
    values["LINGBI_VERSION"] = (ROOT / "VERSION").read_text().strip()
    values.update({"LINGBI_MODEL": "auto", "LINGBI_GATEWAY_PORT": "6006", "LINGBI_PICTURE_URLS": "false"})
    return {"COMPOSE_FILE": env_file.compose_files(values, bool(machine.gpus)), **values}


def asked_for(options: argparse.Namespace, before: dict[str, str], machine: Machine) -> dict[str, str]:
    """What the command line changes in .env, and what follows from it."""
    changes = {}
    if options.model and options.model.startswith(("/", ".", "~")):
        changes["LINGBI_MODEL_FOLDER"] = str(Path(options.model).expanduser().resolve())
    elif options.model:
        changes["LINGBI_MODEL"] = options.model
    if options.host:
        changes["LINGBI_PUBLISH_ADDRESS"] = options.host
    if options.port:
        changes["LINGBI_GATEWAY_PORT"] = str(options.port)
    values = {**before, **changes}
    if "LINGBI_GATEWAY_SERVERS" not in values:
        changes["LINGBI_GATEWAY_SERVERS"] = servers(values, machine)
    if options.engine or changes.keys() & set(env_file.overrides_of(values).values()):
        uses_gpus = (
            is_on_gpus(before)
            if not options.engine
            else options.engine == "turbomind" or (options.engine == "auto" and bool(machine.gpus))
        )
        changes["COMPOSE_FILE"] = env_file.compose_files(values, uses_gpus, before.get("COMPOSE_FILE", ""))
    return {name: value for name, value in changes.items() if before.get(name) != value}


def servers(values: dict[str, str], machine: Machine) -> str:
    """The workers of this machine as the gateway reaches them: one a GPU."""
    asked = values.get("LINGBI_GPU_IDS", "")
    count = values.get("LINGBI_GPU_COUNT", "all")
    cards = len([line for line in machine.gpus if line.startswith("GPU ")])
    workers = len(asked.split(",")) if asked else (int(count) if count.isdigit() else cards)
    workers = int(values.get("LINGBI_WORKERS", "0")) or (workers if is_on_gpus(values) else 1)
    return ",".join(f"{values['LINGBI_SUBNET']}.200:{23333 + worker}" for worker in range(max(1, workers)))


def is_on_gpus(values: dict[str, str]) -> bool:
    return "compose.cpu.yaml" not in values.get("COMPOSE_FILE", "").split(":")


def check_all(values: dict[str, str], machine: Machine) -> None:
    """All that can be told before anything is changed. Raises Refusal."""
    env_file.check(values, env_file.known_names())
    preflight.check_subnet(values.get("LINGBI_SUBNET", ""))
    if is_on_gpus(values):
        preflight.check_gpus(values, machine, True)
        preflight.check_runtime(machine)
    preflight.check_folder(values, "LINGBI_MODEL_FOLDER", ["config.json"])
    preflight.check_folder(values, "LINGBI_TLS_FOLDER", ["certificate.pem", "key.pem"])
    if not stack.is_running():
        preflight.check_port(values["LINGBI_PUBLISH_ADDRESS"], values["LINGBI_GATEWAY_PORT"])


def targets(values: dict[str, str]) -> str:
    """What Prometheus watches: the gateway's servers, as JSON, which is YAML too."""
    return json.dumps(
        [{"targets": [server for server in re.split(r"[,\s]+", values["LINGBI_GATEWAY_SERVERS"]) if server]}]
    )


def gpu_options(values: dict[str, str]) -> list:
    """docker run's options for the GPUs of the server."""
    if not is_on_gpus(values):
        return ["--env=LINGBI_ENGINE=cpu"]
    asked = values.get("LINGBI_GPU_IDS")
    return ["--gpus", f'"device={asked}"' if asked else values.get("LINGBI_GPU_COUNT", "all")]


def make_secrets(folder: Path) -> None:
    """Keys that are missing. The folder is closed; the files are not, as the containers' user must read them."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for name in SECRETS:
        file = folder / name
        if not file.exists():
            file.write_text(f"lb-{secrets.token_urlsafe(32)}\n")
            os.chmod(str(file), 0o644)


def url(values: dict[str, str]) -> str:
    """The gateway's address, as seen from this machine."""
    address = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(
        values["LINGBI_PUBLISH_ADDRESS"], values["LINGBI_PUBLISH_ADDRESS"]
    )
    is_tls = values.get("LINGBI_TLS_FOLDER") or values.get("LINGBI_GATEWAY_TLS", "off") != "off"
    return f"{'https' if is_tls else 'http'}://{address}:{values['LINGBI_GATEWAY_PORT']}"


def how_to_call(report: dict) -> str:
    """What people read at the end."""
    key = Path(report["api_key_file"]).read_text().split()[0]
    model = '"model": "\'"$(curl -s -H "Authorization: Bearer $KEY" $URL/v1/models | sed \'s/.*"id": *"\\([^"]*\\)".*/\\1/\')"\'"'
    picture = f"data:image/png;base64,'\"$(base64 -w0 {DRAWN})\"'"
    return f"""
lingbi is up after {report['seconds']} s, in containers.
  page     {report['url']}
  API      {report['url']}/v1
  API key  {key}   (in {report['api_key_file']})
Ask it about a picture (paste these lines):

URL={report['url']} KEY={key}
curl -s $URL/v1/chat/completions -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' \\
  -d '{{{model}, "messages": [{{"role": "user", "content": [
        {{"type": "text", "text": "请描述图中内容"}},
        {{"type": "image_url", "image_url": {{"url": "{picture}"}}}}]}}]}}'

scripts/smoke checks it, scripts/down ends it; `docker compose logs -f` shows what it says."""


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
