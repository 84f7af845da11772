"""What the gateway was started with, so that a reload renders its configuration again from the same settings."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from lingbi_gateway.configuration import Machine
from lingbi_gateway.settings import PREFIX, Settings, load_settings

FILE = "started-with.json"


def text_of(environment: Mapping[str, str], machine: Machine) -> str:
    """The record's text. The settings hold no secret: keys and certificates are files that they only name."""
    given = {key: value for key, value in environment.items() if key.startswith(PREFIX)}
    kept = asdict(machine)
    del kept["servers"]  # their list is read anew
    return json.dumps({"environment": given, "machine": kept}, indent=1) + "\n"


def read(folder: Path) -> tuple[Settings, Machine] | None:
    """(settings, machine) of the gateway that was started in this folder; None if an earlier version started it."""
    file = folder / FILE
    if not file.exists():
        return None
    found = json.loads(file.read_text(encoding="utf-8"))
    kept = found["machine"]
    user, version = kept["user"] and tuple(kept["user"]), tuple(kept["version"])
    machine = Machine(user, kept["open_files"], version, ends_port=kept.get("ends_port", 0))
    settings = replace(load_settings(found["environment"]), dir=folder)
    if not machine.ends_port:  # an earlier version started it, without a router
        settings = replace(settings, affinity="off")
    return settings, machine
