"""Decides the unit for a command line, and has it judged as systemd will run it, before anything is changed."""

import argparse
import json
import os
import pwd
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from lingbi.errors import ConfigurationError
from lingbi.launch.edge import EVERYWHERE, ROOT
from lingbi.launch.systemd import unit as unit_file
from lingbi.launch.systemd.unit import PROGRAM, Unit
from lingbi.settings import PREFIX, Settings

NGINX = ROOT / ".lingbi/tools/nginx/usr/sbin"  # where scripts/environment unpacks it


def decide(options: argparse.Namespace, settings: Settings, is_system: bool) -> Unit:
    """The unit for these options and this shell's settings. Raises ConfigurationError for what cannot stand in it."""
    owner = pwd.getpwuid(owner_of(settings.state_dir) if is_system else os.getuid())
    prefix = PREFIX if options.server_only else f"{PREFIX}GATEWAY_"
    asked = {f"{PREFIX}MODEL": options.model, f"{PREFIX}ENGINE": options.engine}
    asked |= {f"{prefix}HOST": options.host, f"{prefix}PORT": options.port}
    asked |= {f"{PREFIX}STATE_DIR": settings.state_dir, f"{PREFIX}MODELS_DIR": settings.models_dir}
    said = {key: str(value) for key, value in asked.items() if value is not None}
    path = unit_file.search_path(os.environ.get("PATH", os.defpath) + EVERYWHERE, NGINX)
    grace = os.environ.get(f"{PREFIX}STOP_GRACE")
    return Unit(
        name=options.name,
        root=ROOT,
        state_dir=settings.state_dir,
        command=(sys.executable, "-m", PROGRAM, *(["--server-only"] if options.server_only else [])),
        environment=unit_file.environment(os.environ, said, owner.pw_dir, path),
        user=owner.pw_name if is_system else None,
        stop_timeout_s=unit_file.stop_timeout_s(settings.drain_timeout_s, options.server_only, grace),
    )


def owner_of(state_dir: Path) -> int:
    """The user that a system unit is for: whom the state folder, or else lingbi's own folder, belongs to."""
    return (state_dir if state_dir.exists() else ROOT).stat().st_uid


def judge(unit: Unit) -> dict[str, Any]:
    """Have the unit's own program decide as it will: with its environment, user and folder. Raises what it refuses."""
    done = subprocess.run(
        [*unit.command, "--check"],
        env=dict(unit.environment),
        cwd=unit.root,
        capture_output=True,
        text=True,
        **user_of(unit),
    )
    told = [line for line in done.stderr.splitlines() if not line.startswith("error: ")]
    print("\n".join(told), file=sys.stderr, flush=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise ConfigurationError(f"{last[0].removeprefix('error: ')} (as user {unit.user or os.getuid()})")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def user_of(unit: Unit) -> dict[str, Any]:
    """The options of subprocess that make a child the unit's user."""
    if unit.user is None or pwd.getpwnam(unit.user).pw_uid == os.geteuid():
        return {}
    entry = pwd.getpwnam(unit.user)
    return {
        "user": entry.pw_uid,
        "group": entry.pw_gid,
        "extra_groups": os.getgrouplist(entry.pw_name, entry.pw_gid),
    }


def pinned(unit: Unit, found: dict[str, Any]) -> Unit:
    """The unit with the model and the engine that were decided now.

    A boot before the GPU's driver is there must fail and be tried again, not choose the CPU and the demo.
    """
    decided = {f"{PREFIX}MODEL": found["model"], f"{PREFIX}ENGINE": found["engine"]}
    return replace(unit, environment=dict(unit.environment) | decided)
