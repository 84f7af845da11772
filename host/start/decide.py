"""Decides what .env must hold: first values, changes from the command line, and what follows. No side effects."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from host import env_file
from host.addresses import url_host
from host.env_file import PREFIX_FILE, ROOT
from host.errors import Refusal
from host.machine import Machine
from host.schema import declared, default_of, remedy

PREFIX = "LINGBI_"
OWN_SERVERS = re.compile(r"(?P<host>[0-9]+(\.[0-9]+){2}\.200):[0-9]+(,(?P=host):[0-9]+)*")


def missing_from(values: dict[str, str]) -> dict[str, str]:
    """Settings that a newer version has and an older .env lacks, with their defaults."""
    names = {setting.name: setting.default for setting in declared("deployment")}
    names["LINGBI_GATEWAY_PORT"] = default_of("LINGBI_GATEWAY_PORT")
    names["LINGBI_VERSION"] = (ROOT / "VERSION").read_text().strip()
    if PREFIX_FILE.is_file():
        names["LINGBI_IMAGE_PREFIX"] = PREFIX_FILE.read_text().strip()
    return {name: default for name, default in names.items() if default is not None and name not in values}


def first_values(machine: Machine) -> dict[str, str]:
    """The values of a first .env."""
    values = {**missing_from({}), "LINGBI_MODEL": "auto"}
    return {"COMPOSE_FILE": env_file.compose_files(values, bool(machine.gpus), machine.has_secrets), **values}


def of_shell(environment: Mapping[str, str], before: dict[str, str], options: argparse.Namespace) -> dict[str, str]:
    """The settings of the shell's environment, which a native start takes too: what .env does not say yet. Options go before
    them, and what the containers fix is left out. before: the values of .env as it is. Raises Refusal where the two differ."""
    chosen = {
        "LINGBI_MODEL": options.model,
        "LINGBI_PUBLISH_ADDRESS": options.host,
        "LINGBI_GATEWAY_PORT": options.port,
    }
    passed = {setting.name for setting in declared() if setting.is_fixed} | {name for name in chosen if chosen[name]}
    known, found = env_file.known_names(), dict[str, str]()
    for name, value in sorted(environment.items()):
        if not name.startswith(PREFIX) or name in passed or not value or before.get(name) == value:
            continue
        if name not in known:
            raise Refusal(f"{name}={value!r} in this shell: there is no such setting; {remedy(name, known)}")
        if before.get(name):
            raise Refusal(
                f"{name} is {value!r} in this shell and {before[name]!r} in .env, which is what counts for containers; change "
                f"that line, or `unset {name}`"
            )
        found[name] = value
    return found


def asked_for(options: argparse.Namespace, before: dict[str, str], machine: Machine) -> dict[str, str]:
    """The changes to .env from the command line, and those that follow from them."""
    changes = model_of(options.model) if options.model else {}
    if options.host:
        changes["LINGBI_PUBLISH_ADDRESS"] = options.host
    if options.port:
        changes["LINGBI_GATEWAY_PORT"] = str(options.port)
    values = {**before, **changes}
    files = before.get("COMPOSE_FILE", "")  # empty: a .env with a few lines by hand, before the first start
    uses_gpus = is_on_gpus(before) if files and not options.engine else wants_gpus(options.engine or "auto", machine)
    followed = env_file.compose_files(values, uses_gpus, machine.has_secrets, files)
    if set(followed.split(":")) != set(files.split(":")):
        values["COMPOSE_FILE"] = followed
    if OWN_SERVERS.fullmatch(values.get("LINGBI_GATEWAY_SERVERS", "")):  # as version 0.1.0 wrote it
        values["LINGBI_GATEWAY_SERVERS"] = ""  # the server lists them now
    return {name: value for name, value in values.items() if before.get(name, "") != value}


def model_of(asked: list[str]) -> dict[str, str]:
    """The settings of models that are given by name, or of one by folder; each replaces the other. Raises Refusal."""
    names = ",".join(asked).split(",")
    if len(asked) == 1 and is_folder(asked[0]) and (len(names) == 1 or Path(asked[0]).expanduser().is_dir()):
        return {"LINGBI_MODEL_FOLDER": str(Path(asked[0]).expanduser().resolve())}
    for name in names:
        if len(names) > 1 and is_folder(name):
            raise Refusal(
                f"--model {name}: in containers a folder of this machine is served alone; beside others, bring it into the "
                "weights' volume, where /models/NAME names it (docs/several-models.md), or start with --native"
            )
    return {"LINGBI_MODEL": ",".join(asked), "LINGBI_MODEL_FOLDER": ""}


def is_folder(name: str) -> bool:
    """Whether --model names a folder of this machine; /models is the weights' volume."""
    if name.startswith("/models/") and not Path(name).is_dir():
        return False
    return name.startswith(("/", ".", "~")) or ("/" in name and Path(name.split("/")[0]).is_dir())


def wants_gpus(engine: str, machine: Machine) -> bool:
    return engine == "turbomind" or (engine == "auto" and bool(machine.gpus))


def is_on_gpus(values: dict[str, str]) -> bool:
    return "compose.cpu.yaml" not in values.get("COMPOSE_FILE", "").split(":")


def targets(values: dict[str, str], ports: Iterable[int]) -> str:
    """Prometheus's targets, as JSON, which is also valid YAML: the gateway's servers. ports: of the workers that the server
    has started, which is who decides how many there are."""
    listed = values.get("LINGBI_GATEWAY_SERVERS") or ",".join(f"{values['LINGBI_SUBNET']}.200:{port}" for port in ports)
    found = [server.rpartition("=")[2] for server in re.split(r"[,\s]+", listed) if server]  # MODEL=HOST:PORT too
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
