#!/usr/bin/python
"""Tells what lingbi's units on a host run, and how a gateway there reaches its servers. Changes nothing, and takes no lock."""

DOCUMENTATION = r"""
module: unit_status
short_description: Tell what lingbi runs on a host
description:
  - Reads what Docker, the units' records and the workers say at this moment, also while a rollout is under way.
options:
  directory: {type: path, required: true, description: lingbi's folder on the host}
author: lingbi
"""
RETURN = r"""
units: {type: dict, returned: always, description: 'of each unit that is there: what runs, what was recorded, its workers'}
servers: {type: dict, returned: always, description: 'of each server in the list of a gateway: whether it is drained, its workers'}
holder: {type: dict, returned: always, description: who holds the rollout's lock; empty if nobody does}
"""

import concurrent.futures
import json
import os

from ansible.module_utils import lingbi_docker as docker
from ansible.module_utils import lingbi_server as server
from ansible.module_utils import lingbi_unit as unit
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.lingbi_upstreams import FILE, parse

UNITS = {
    "server": ["server"],
    "gateway": ["gateway", "ui"],
}  # with their services; the first one's image has the version
VERSION = "org.opencontainers.image.version"


def look(directory):
    """Everything that the module returns."""
    units = {name: describe(os.path.join(directory, name), services) for name, services in UNITS.items()}
    return {
        "units": {name: found for name, found in units.items() if found},
        "servers": servers(read(os.path.join(directory, "upstreams", FILE))),
        "holder": json.loads(read(os.path.join(directory, "rollout.lock")) or "{}"),
    }


def read(path):
    """The text of a file; empty if there is none."""
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return ""


def describe(directory, services):
    """What a unit runs and what was recorded of it; None if there is no such unit. Raises Failed."""
    if not os.path.isdir(directory):
        return None
    found, running = docker.containers(directory), unit.read_running(directory)
    live = os.path.join(directory, docker.LIVE)
    return {
        "runs": version_of(found.get(services[0])),
        "ill": [name for name in services if not docker.is_well(found.get(name))],
        "is_proven": bool(running) and unit.digests(live) == running["files"],
        "recorded": running.get("version", ""),
        "model": running.get("model", ""),
        "last": (unit.history(directory) or [{}])[-1],
        "workers": ask_all(server.endpoints(read(os.path.join(live, ".env")))) if "server" in services else {},
    }


def version_of(container):
    """The version that a running container's image was built as; empty if it does not run. Raises Failed."""
    if not docker.is_running(container):
        return ""
    return docker.said("docker", "inspect", "--format", f'{{{{index .Config.Labels "{VERSION}"}}}}', container["id"])


def servers(text):
    """{name: {"is_drained", "models", "workers"}} of a gateway's list of servers, its workers asked from here."""
    listed = parse(text)
    answers = ask_all([endpoint for known in listed.values() for endpoint in known["endpoints"]])
    return {
        name: {
            "is_drained": bool(known["token"]),
            "models": known["models"],
            "workers": {endpoint: answers[endpoint] for endpoint in known["endpoints"]},
        }
        for name, known in listed.items()
    }


def ask_all(endpoints):
    """{endpoint: what ask() says}."""
    with concurrent.futures.ThreadPoolExecutor(server.AT_ONCE) as pool:
        return dict(zip(endpoints, pool.map(ask, endpoints), strict=True))


def ask(endpoint):
    """How a worker is, and its model: `ready` (also while the model sleeps until it is asked for), the phase that it tells, or
    why it cannot be reached."""
    try:
        told = server.ask_ready(endpoint)
        how = "ready" if told.get("status") == "ready" else str(told["phase"])
        return {"how": how, "model": str(told.get("model") or "")}
    except OSError as error:
        return {"how": f"cannot be reached: {getattr(error, 'reason', error)}", "model": ""}
    except (ValueError, LookupError):
        return {"how": "gives no answer of lingbi", "model": ""}


def main():
    module = AnsibleModule(
        argument_spec={"directory": {"type": "path", "required": True}},
        supports_check_mode=True,
    )
    try:
        module.exit_json(changed=False, **look(module.params["directory"]))
    except (docker.Failed, OSError, ValueError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
