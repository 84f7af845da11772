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
from lingbi.accounts.key_file import ensure_keys, ensure_page_key, take_keys
from lingbi.accounts.opening import check_accounts
from lingbi.client.addresses import record_file, url_host
from lingbi.commands import MODULES
from lingbi.errors import ConfigurationError, LingbiError
from lingbi.files import write_text
from lingbi.launch.parts import check_parts
from lingbi.launch.plan import PAGE_REQUESTS, Plan, decide, resolved, write_placement
from lingbi.launch.supervision import CONFIG_FILE, KEEPER, command_of, environment, included
from lingbi.logs import configure
from lingbi.model.gpus import find_gpus
from lingbi.model.resolve import Found
from lingbi.model.resources import find_resources
from lingbi.settings import Settings, load_settings
from lingbi.signals import end_at_signals
from lingbi.weights.progress import Progress
from lingbi.weights.start import ensure

log = logging.getLogger("lingbi.entrypoint")
COMMANDS = ("doctor", "fetch", "key", "pipeline", "plan", "smoke", "usage", "verify-model", "weights")
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
    if not is_server:
        check_parts()
    configure(settings.log_level)
    check_writable("LINGBI_STATE_DIR", settings.state_dir)
    for name in ("page_key_file", "workers_file") if is_server else ():
        if file := getattr(settings, name):
            check_writable(f"LINGBI_{name.upper()}", file.parent)
    check_readable("LINGBI_MODELS_DIR", settings.models_dir)
    check_image_networks(settings)
    if is_server:
        check_accounts(settings)
    plan = decide(settings, ALONE, find_resources()) if is_server else None
    for name, found in models_of(plan) if plan else find_weights(settings):
        log.info("model %s: %s", name, found.reason)
        if found.is_to_come:
            check_writable("LINGBI_MODELS_DIR", settings.models_dir)
        ensure(found, settings, Progress())
    log.info("the weights are there%s", "" if plan else "; `docker compose logs gateway` says how to call the server")
    if plan:
        choice, workers = plan.placement.choice, plan.placement.workers
        log.info("engine %s, %s worker(s): %s", choice.engine, workers, choice.reason)
        for worker, seat in enumerate(plan.placement.seats if plan.placement.is_of_several else ()):
            log.info("worker %d serves %s: %s", worker, seat.place, seat.fit)
        become_supervisord(plan)


def check_image_networks(settings: Settings) -> None:
    """Raise ConfigurationError for bad networks. Parsing imports torch, which takes seconds: only if any are set."""
    if settings.picture_networks:
        from lingbi.http.service import image_rules

        image_rules(settings)


def models_of(plan: Plan) -> list[tuple[str, Found]]:
    """Every model's name, and where it is."""
    return [(seat.served_name, seat.found) for seat in plan.placement.models]


def find_weights(settings: Settings) -> list[tuple[str, Found]]:
    """The same of a container that only fetches: as it loads nothing, a named model's memory is not checked."""
    every = planner.find_weights(settings, find_gpus())
    for found in every:
        planner.identify(found)
    return [(found.served_name, found) for found in every]


def become_supervisord(plan: Plan) -> None:
    """Write the keys and the record for health and smoke, then exec supervisord: as process 1 it stops the workers."""
    settings = plan.settings
    write_keys(settings)
    if settings.workers_file:
        write_text(settings.workers_file, workers_list(plan))
    (settings.state_dir / "run").mkdir(exist_ok=True)
    write_placement(plan)
    record_file(settings.state_dir).write_text(json.dumps(record(plan)))
    values = environment(resolved(plan), plan.placement.workers)
    container = CONFIG_FILE.with_name("container.conf")
    values["SUPERVISOR_INCLUDE"] = included(settings, container, is_container=True)
    command = command_of(KEEPER)
    os.execve(command[0], command, os.environ | values)


def write_keys(settings: Settings) -> None:
    """Take the keys that are given in files, and make the operator's and the page's where there are none."""
    ensure_keys(settings.hashed_key_file(), settings.key_file())
    if settings.page_key_file:
        ensure_page_key(settings.hashed_key_file(), settings.page_key_file, PAGE_REQUESTS)
    take_keys(settings.hashed_key_file(), settings.plain_keys_dir)


def workers_list(plan: Plan) -> str:
    """The workers as the gateway's nginx lists them, one a line, each with its model where there are several."""
    host, models = url_host(plan.settings.workers_host), plan.placement.labels()
    lines = [f"server {host}:{plan.settings.port + number};" for number in range(len(models))]
    return "".join(
        f"{line} # model={model}\n" if model else f"{line}\n" for line, model in zip(lines, models, strict=True)
    )


def record(plan: Plan) -> dict[str, Any]:
    """What the health check and scripts/smoke need to know about a start."""
    return {
        "url": plan.url,
        "ports": [plan.settings.port + worker for worker in range(plan.placement.workers)],
        "api_key_file": str(plan.settings.key_file()),
        **plan.placement.names(),
        **({"serves": plan.placement.labels()} if plan.placement.is_of_several else {}),
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
