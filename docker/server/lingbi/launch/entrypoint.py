"""The entrypoint of the server's image: it loads settings, runs checks, fetches weights, and becomes supervisord.

`serve` (the default) does all of this; `fetch` without arguments stops when the weights are present and
verified. The other commands are those of scripts/, and lmdeploy's own.
"""

import argparse
import json
import logging
import os
import runpy
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lingbi import planner
from lingbi.commands import MODULES
from lingbi.errors import ConfigurationError, LingbiError
from lingbi.http.auth import ensure_keys, take_keys
from lingbi.launch.plan import Plan, decide, resolved
from lingbi.launch.supervision import CONFIG_FILE, environment, record_file
from lingbi.logs import configure
from lingbi.model.resolve import Found
from lingbi.model.resources import find_resources
from lingbi.settings import Settings, load_settings
from lingbi.signals import end_at_signals
from lingbi.weights.progress import Progress
from lingbi.weights.start import ensure

log = logging.getLogger("lingbi.entrypoint")
COMMANDS = ("doctor", "fetch", "key", "pipeline", "plan", "smoke", "verify-model", "weights")
ALONE = argparse.Namespace(server_only=True)  # page and gateway run in other containers
GIVEN_GPUS, CUDA_GPUS = "NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"


def main(arguments: list[str]) -> int:
    """Exit status of the command; 2 for a bad configuration, 3 if the server could not start."""
    name, *rest = arguments or ["serve"]
    os.environ.update(slices(os.environ))
    if name == "lmdeploy":
        os.execvp("lmdeploy", ["lmdeploy", *rest])
    if name in COMMANDS and (rest or name != "fetch"):
        sys.argv = [name, *rest]
        runpy.run_module(MODULES[name], run_name="__main__", alter_sys=True)
        return 0
    try:
        if name not in ("serve", "fetch") or rest:
            raise ConfigurationError(
                f"there is no command {' '.join(arguments)!r}; use serve, lmdeploy, {', '.join(COMMANDS)}"
            )
        prepare(is_server=name == "serve")
    except LingbiError as error:
        configure("INFO")
        log.error("%s", error)
        return error.exit_status
    return 0


def prepare(is_server: bool) -> None:
    """Prepare everything for serving; as the server, become supervisord and do not return."""
    end_at_signals()
    settings = load_settings()
    configure(settings.log_level)
    check_writable("LINGBI_STATE_DIR", settings.state_dir)
    check_readable("LINGBI_MODELS_DIR", settings.models_dir)
    check_image_networks(settings)
    plan = decide(settings, ALONE, find_resources()) if is_server else None
    found = plan.placement.found if plan else find_weights(settings)
    log.info("model %s: %s", plan.placement.served_name if plan else found.served_name, found.reason)
    if found.is_to_come:
        check_writable("LINGBI_MODELS_DIR", settings.models_dir)
    ensure(found, settings, Progress())
    log.info("the weights are there")
    if plan:
        choice, workers = plan.placement.choice, plan.placement.workers
        log.info("engine %s, %s worker(s): %s", choice.engine, workers, choice.reason)
        become_supervisord(plan)


def check_image_networks(settings: Settings) -> None:
    """Raise ConfigurationError for bad networks. Parsing imports torch, which takes seconds: only if any are set."""
    if settings.picture_networks:
        from lingbi.http.service import image_rules

        image_rules(settings)


def find_weights(settings: Settings) -> Found:
    """The model of a container that only fetches: as it loads nothing, neither engine nor memory is checked."""
    found = planner.find_weights(settings)
    planner.identify(found)
    return found


def become_supervisord(plan: Plan) -> None:
    """Write the keys and the record for health and smoke, then exec supervisord: as process 1 it stops the workers."""
    settings = plan.settings
    ensure_keys(settings.hashed_key_file(), settings.key_file())
    if settings.plain_keys_dir:
        take_keys(settings.hashed_key_file(), settings.plain_keys_dir)
    (settings.state_dir / "run").mkdir(exist_ok=True)
    record_file(settings.state_dir).write_text(json.dumps(record(plan)))
    values = environment(resolved(plan), plan.placement.workers)
    values["SUPERVISOR_INCLUDE"] = str(CONFIG_FILE.with_name("container.conf"))
    command = [sys.executable, "-m", "lingbi.launch.pid1", "-c", str(CONFIG_FILE)]
    os.execve(command[0], command, os.environ | values)


def record(plan: Plan) -> dict[str, Any]:
    """What the health check and scripts/smoke need to know about a start."""
    return {
        "url": plan.url,
        "ports": [plan.settings.port + worker for worker in range(plan.placement.workers)],
        "api_key_file": str(plan.settings.key_file()),
        "model": plan.placement.served_name,
        "engine": plan.placement.choice.engine,
    }


def slices(given: Mapping[str, str]) -> dict[str, str]:
    """CUDA_VISIBLE_DEVICES for a container's MIG slices: the driver lists their whole card as well."""
    devices = given.get(GIVEN_GPUS, "")
    return {CUDA_GPUS: devices} if devices.startswith("MIG-") and CUDA_GPUS not in given else {}


def check_readable(setting: str, folder: Path) -> None:
    """Raise ConfigurationError if this user cannot read a folder."""
    if folder.exists() and not os.access(folder, os.R_OK | os.X_OK):
        user = f"{os.getuid()}:{os.getgid()}"
        raise ConfigurationError(
            f"{setting}={str(folder)!r} cannot be read by user {user}; give it to that user (chown -R {user}), "
            "or mount another volume there"
        )


def check_writable(setting: str, folder: Path) -> None:
    """Raise ConfigurationError if this user cannot write to a folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()  # a unique name: the entrypoint is process 1 in every container
    except OSError as error:
        user = f"{os.getuid()}:{os.getgid()}"
        raise ConfigurationError(
            f"{setting}={str(folder)!r} cannot be written by user {user}: {error.strerror}; "
            f"give it to that user (chown -R {user}), or mount another volume there"
        ) from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
