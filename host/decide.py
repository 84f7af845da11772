"""Decides what .env must hold: first values, changes from the command line, and what follows. No side effects."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from host import env_file
from host.addresses import url_host
from host.env_file import PREFIX_FILE, ROOT
from host.machine import Machine
from host.schema import declared, default_of

FIRST_WORKER_PORT = 23333  # as in compose.yaml
OWN_SERVERS = re.compile(r"(?P<host>[0-9]+(\.[0-9]+){2}\.200):[0-9]+(,(?P=host):[0-9]+)*")


def missing_from(values: dict[str, str]) -> dict[str, str]:
    """Settings that a newer version has and an older .env lacks, with their defaults."""
    names = {setting.name: setting.default for setting in declared("deployment")}
    names["LINGBI_GATEWAY_PORT"] = default_of("LINGBI_GATEWAY_PORT")
    return {name: default for name, default in names.items() if default is not None and name not in values}


def first_values(machine: Machine) -> dict[str, str]:
    """The values of a first .env."""
    values = missing_from({})
    values["LINGBI_VERSION"] = (ROOT / "VERSION").read_text().strip()
    if PREFIX_FILE.is_file():
        values["LINGBI_IMAGE_PREFIX"] = PREFIX_FILE.read_text().strip()
    values.update({"LINGBI_MODEL": "auto", "LINGBI_PICTURE_URLS": "false"})
    return {"COMPOSE_FILE": env_file.compose_files(values, bool(machine.gpus)), **values}


def asked_for(options: argparse.Namespace, before: dict[str, str], machine: Machine) -> dict[str, str]:
    """The changes to .env from the command line, and those that follow from them."""
    changes = model_of(options.model) if options.model else {}
    if options.host:
        changes["LINGBI_PUBLISH_ADDRESS"] = options.host
    if options.port:
        changes["LINGBI_GATEWAY_PORT"] = str(options.port)
    values = {**before, **changes}
    if options.engine or changes.keys() & {"LINGBI_MODEL_FOLDER"} or "COMPOSE_FILE" not in before:
        uses_gpus = is_on_gpus(before) if options.engine is None else wants_gpus(options.engine, machine)
        values["COMPOSE_FILE"] = env_file.compose_files(values, uses_gpus, before.get("COMPOSE_FILE", ""))
    if not values.get("LINGBI_GATEWAY_SERVERS") or OWN_SERVERS.fullmatch(values["LINGBI_GATEWAY_SERVERS"]):
        values["LINGBI_GATEWAY_SERVERS"] = servers(values, machine)
    return {name: value for name, value in values.items() if before.get(name, "") != value}


def model_of(asked: str) -> dict[str, str]:
    """The settings of a model that is given by name or by folder; each replaces the other."""
    is_path = asked.startswith(("/", ".", "~")) or ("/" in asked and Path(asked.split("/")[0]).is_dir())
    if is_path:
        return {"LINGBI_MODEL_FOLDER": str(Path(asked).expanduser().resolve())}
    return {"LINGBI_MODEL": asked, "LINGBI_MODEL_FOLDER": ""}


def wants_gpus(engine: str, machine: Machine) -> bool:
    return engine == "turbomind" or (engine == "auto" and bool(machine.gpus))


def is_on_gpus(values: dict[str, str]) -> bool:
    return "compose.cpu.yaml" not in values.get("COMPOSE_FILE", "").split(":")


def servers(values: dict[str, str], machine: Machine) -> str:
    """The addresses of this machine's workers as seen by the gateway: one worker per GPU unless set."""
    asked = values.get("LINGBI_GPU_IDS", "")
    count = values.get("LINGBI_GPU_COUNT", "all")
    cards = len([line for line in machine.gpus if line.startswith("GPU ")])
    workers = len(asked.split(",")) if asked else (int(count) if count.isdigit() else cards)
    workers = env_file.whole(values, "LINGBI_WORKERS") or (workers if is_on_gpus(values) else 1)
    host = f"{values['LINGBI_SUBNET']}.200"
    return ",".join(f"{host}:{FIRST_WORKER_PORT + worker}" for worker in range(max(1, workers)))


def targets(values: dict[str, str]) -> str:
    """Prometheus's targets: the gateway's servers, as JSON, which is also valid YAML."""
    found = [server for server in re.split(r"[,\s]+", values["LINGBI_GATEWAY_SERVERS"]) if server]
    return json.dumps([{"targets": found}])


def is_tls(values: dict[str, str]) -> bool:
    return bool(values.get("LINGBI_TLS_FOLDER")) or values.get("LINGBI_GATEWAY_TLS", "off") not in ("", "off")


def url(values: dict[str, str]) -> str:
    """The gateway's address, as seen from this machine."""
    host = url_host(values["LINGBI_PUBLISH_ADDRESS"])
    return f"{'https' if is_tls(values) else 'http'}://{host}:{values['LINGBI_GATEWAY_PORT']}"


def why_engine(values: dict[str, str], machine: Machine) -> str:
    """The engine that the server gets, and the reason, for people."""
    if not is_on_gpus(values):
        return f"cpu: {'compose.cpu.yaml is in COMPOSE_FILE' if machine.gpus else 'no NVIDIA GPU is here'}"
    asked = values.get("LINGBI_GPU_IDS") or values.get("LINGBI_GPU_COUNT", "all")
    return f"turbomind: GPUs {asked} of {len([line for line in machine.gpus if line.startswith('GPU ')])}"
