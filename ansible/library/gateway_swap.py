#!/usr/bin/python
"""Replaces a serving gateway without losing a request.

A helper of the new version starts beside the old gateway and receives the new connections. The old gateway stops after its
last answer, and the new one takes its place and port. Then new connections go to the new gateway, and the helper stops after
its last answer. Connections that exist are never redirected: the kernel remembers where each one goes.
"""

DOCUMENTATION = r"""
module: gateway_swap
short_description: Replace a gateway without losing a request
options:
  directory: {type: path, required: true, description: folder of the unit}
  port: {type: int, required: true, description: port of the gateway}
  ready_wait_s: {type: int, required: true, description: longest wait for healthy containers}
  drain_wait_s: {type: int, required: true, description: longest wait for running answers}
author: lingbi
"""
RETURN = r"""
seconds: {type: float, returned: always, description: how long it took}
log: {type: list, returned: when it failed, description: last lines of the containers' logs}
"""

import contextlib
import json
import time

from ansible.module_utils import lingbi_docker as docker
from ansible.module_utils import lingbi_unit as unit
from ansible.module_utils.basic import AnsibleModule

HELPER = "lingbi-gateway-handover"
HELPER_DIR = "/tmp/lingbi-gateway"  # in the container
SERVICES = ("gateway", "ui")
POLL_S = 0.2


def rules(port, address):
    """iptables' arguments that redirect new connections to the helper, from other machines and from this one."""
    match = ["-p", "tcp", "--dport", str(port), "-m", "addrtype", "--dst-type", "LOCAL"]
    target = ["-m", "comment", "--comment", HELPER, "-j", "DNAT", "--to-destination", f"{address}:{port}"]
    return [[chain, *match, *target] for chain in ("PREROUTING", "OUTPUT")]


def turn_to(port, address):
    """Redirect new connections to the helper. Raises Failed."""
    for rule in rules(port, address):
        docker.said("iptables", "--wait", "-t", "nat", "-I", rule[0], "1", *rule[1:])


def turn_back():
    """Remove all rules of a handover, those of an interrupted one too. Raises Failed."""
    for line in docker.said("iptables-save", "-t", "nat").splitlines():
        if HELPER in line and line.startswith("-A "):
            docker.said("iptables", "--wait", "-t", "nat", "-D", *line.replace('"', "").split()[1:])


def start_helper(directory, port, wait_s):
    """Start the new version beside the old one; its address in the network that leads outside. Raises Failed."""
    begin = (
        "run",
        "--detach",
        "--no-deps",
        "--use-aliases",
        "--name",
        HELPER,
        "--publish",
        f"127.0.0.1:0:{port}",
        "--env",
        f"LINGBI_GATEWAY_DIR={HELPER_DIR}",  # the old gateway's folder holds its process id and received files
        "gateway",
    )
    done = docker.compose(directory, *begin, folder=unit.NEXT, timeout_s=wait_s)
    if done.returncode:
        raise docker.Failed(f"the new gateway did not start: {done.stderr.strip()[-300:]}")
    deadline = time.monotonic() + wait_s
    while (state := described())["State"]["Health"]["Status"] != "healthy":
        if not state["State"]["Running"] or time.monotonic() > deadline:
            words = docker.run("docker", "logs", "--tail", "5", HELPER)
            raise docker.Failed(
                f"the new gateway did not become healthy: {(words.stdout + words.stderr).strip()[-600:]}"
            )
        time.sleep(POLL_S)
    networks = state["NetworkSettings"]["Networks"]
    return next(network["IPAddress"] for name, network in networks.items() if name.endswith("_edge"))


def described():
    """Docker's description of the helper. Raises Failed if there is none."""
    return json.loads(docker.said("docker", "inspect", HELPER))[0]


def end_helper(wait_s):
    """End the redirection, and stop the helper after its last answer. Raises Failed."""
    turn_back()
    if docker.run("docker", "inspect", HELPER).returncode == 0:
        with contextlib.suppress(docker.Failed):  # a helper that does not stop in time is removed below
            docker.run("docker", "stop", "--time", str(wait_s), HELPER, timeout_s=wait_s + docker.MARGIN_S)
        docker.said("docker", "rm", "--force", "--volumes", HELPER)


def swap(directory, port, ready_wait_s, drain_wait_s):
    """Replace the gateway; if the new one fails, start the old one before the redirection ends. Raises Failed."""
    end_helper(drain_wait_s)
    if not docker.is_running(docker.containers(directory).get("gateway")):
        unit.place(directory)
        return docker.bring_up(directory, SERVICES, ready_wait_s)
    try:
        turn_to(port, start_helper(directory, port, ready_wait_s))
        docker.halt(directory, ["gateway"], drain_wait_s)
        unit.place(directory)
        docker.bring_up(directory, SERVICES, ready_wait_s)
    except docker.Failed:
        unit.put_back(directory)
        docker.bring_up(directory, SERVICES, ready_wait_s)
        raise
    finally:
        end_helper(drain_wait_s)


def main():
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "port": {"type": "int", "required": True},
            "ready_wait_s": {"type": "int", "required": True},
            "drain_wait_s": {"type": "int", "required": True},
        },
    )
    begun, directory = time.monotonic(), module.params["directory"]
    try:
        with unit.alone(directory, module.params["ready_wait_s"] + module.params["drain_wait_s"]):
            swap(**module.params)
    except (docker.Failed, OSError) as error:
        module.fail_json(msg=str(error), log=docker.log_end(directory))
    module.exit_json(changed=True, seconds=round(time.monotonic() - begun, 2))


if __name__ == "__main__":
    main()
