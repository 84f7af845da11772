#!/usr/bin/python
"""Finds out what a host is and what makes it unfit for lingbi; changes nothing."""

DOCUMENTATION = r"""
module: host_report
short_description: Judge a host before lingbi is installed on it
description:
  - Gathers system, kernel, memory, disk, ports, Docker and GPUs in one go, and judges them. Changes nothing.
  - The clock is judged on the controller, by the action plugin of the same name.
options:
  kernel_minimum: {type: str, required: true, description: oldest kernel}
  docker_minimum: {type: str, required: true, description: 'oldest engine, if there is one'}
  compose_minimum: {type: str, required: true, description: 'oldest Compose plugin, if there is one'}
  driver_minimum: {type: str, required: true, description: 'oldest NVIDIA driver, if the host is to serve with GPUs'}
  capabilities: {type: list, elements: list, required: true, description: 'oldest and newest compute capability, each [major, minor]'}
  gpus: {type: raw, required: true, description: 'all, or a list of indices, UUIDs or slices'}
  disk_free_gib: {type: int, required: true, description: free disk before a first start}
  update_disk_free_gib: {type: int, required: true, description: free disk for the images of one more version}
  memory_gib: {type: int, required: true, description: memory of the host}
  clock_skew_s: {type: int, required: true, description: 'most seconds between the clocks, for the action plugin'}
  directory: {type: path, required: true, description: lingbi's folder on the host}
  ports: {type: list, elements: int, required: true, description: ports that lingbi will listen on}
  first_port: {type: int, required: true, description: 'port of the first worker; 0 on a host without a server'}
  workers: {type: int, required: true, description: 'workers that are asked for; 0 is one for each GPU'}
  address: {type: str, required: true, description: address that lingbi publishes on}
  needs_engine: {type: bool, default: false, description: whether a Docker engine must be there already}
author: lingbi
"""
RETURN = r"""
faults: {type: list, returned: always, description: 'a sentence for each fault'}
time_s: {type: float, returned: always, description: the host's time when all was gathered}
gpus: {type: list, returned: always, description: GPUs that were found}
memory_mib: {type: int, returned: always, description: memory of the host}
docker: {type: str, returned: always, description: 'version of the engine, empty if there is none'}
has_toolkit: {type: bool, returned: always, description: whether the NVIDIA container toolkit is there}
"""

import ipaddress
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import time

from ansible.module_utils.basic import AnsibleModule

SYSTEMS = {"debian": ("12",), "ubuntu": ("22.04", "24.04")}
COMMAND_TIMEOUT_S = 20
DOCKER_ROOT = "/var/lib/docker"
STARTING_S = 10  # a starting container holds its ports before Docker lists it, for 1 to 3 s on a busy host


def version(text):
    """A version as numbers that can be compared."""
    return [int(number) for number in re.findall(r"\d+", text.split("+")[0].split("-")[0])]


def judge(seen, wanted):
    """Sentences that name what is wrong, the value seen and the remedy; pure."""
    faults = judge_system(seen, wanted) + judge_disk(seen, wanted) + judge_engine(seen, wanted)
    faults += judge_address(seen, wanted) + judge_ports(seen)
    return faults + (judge_gpus(seen, wanted) if wanted["gpus"] else [])


def judge_system(seen, wanted):
    faults = []
    if seen["release"] not in SYSTEMS.get(seen["system"], ()):
        faults.append(
            f"the system is {seen['system']} {seen['release']}; lingbi supports Debian 12, Ubuntu 22.04 and 24.04"
        )
    if version(seen["kernel"]) < version(wanted["kernel_minimum"]):
        faults.append(f"the kernel is {seen['kernel']}; {wanted['kernel_minimum']} is needed (lingbi_kernel_minimum)")
    if seen["memory_mib"] < wanted["memory_gib"] << 10:
        faults.append(
            f"the host has {seen['memory_mib'] / 1024:.1f} GiB of memory and needs {wanted['memory_gib']} (lingbi_memory_gib)"
        )
    return faults


def judge_disk(seen, wanted):
    name = "lingbi_update_disk_free_gib" if seen["is_installed"] else "lingbi_disk_free_gib"
    needed = wanted[name.removeprefix("lingbi_")]
    return [
        f"{free:.1f} GiB of disk are free for {place} and {needed} are needed ({name}); free some space"
        for place, free in seen["disks"].items()
        if free < needed
    ]


def judge_engine(seen, wanted):
    if not seen["docker"]:
        missing = "there is no Docker engine; run site first" if wanted["needs_engine"] else ""
        return [fault for fault in (seen["docker_fault"] or missing,) if fault]
    faults = []
    if version(seen["docker"]) < version(wanted["docker_minimum"]):
        faults.append(
            f"the Docker engine is {seen['docker']}; {wanted['docker_minimum']} is needed (lingbi_docker_minimum): upgrade it"
        )
    if not seen["compose"] or version(seen["compose"]) < version(wanted["compose_minimum"]):
        faults.append(
            f"the Compose plugin is {seen['compose'] or 'missing'}; {wanted['compose_minimum']} is needed "
            "(lingbi_compose_minimum): install docker-compose-plugin"
        )
    return faults


def judge_address(seen, wanted):
    if seen["has_address"]:
        return []
    return [
        f"{wanted['address']} is not an IP address of this host (lingbi_address); give its address in the lab's network"
    ]


def judge_ports(seen):
    return [f"port {port} is taken by another program; stop it, or choose another port" for port in seen["taken_ports"]]


def judge_gpus(seen, wanted):
    if seen["gpu_fault"]:
        return [f"{seen['gpu_fault']}; install the NVIDIA driver, or set lingbi_gpus: [] for the CPU engine"]
    faults = []
    drivers = {gpu["driver"] for gpu in seen["gpus"]}
    for driver in sorted(drivers):
        if version(driver) < version(wanted["driver_minimum"]):
            faults.append(
                f"the NVIDIA driver is {driver}; {wanted['driver_minimum']} is needed (lingbi_nvidia_driver_minimum): upgrade it"
            )
    known = {str(name) for gpu in seen["gpus"] for name in (gpu["index"], gpu["uuid"])} | set(seen["slices"])
    for asked in [] if wanted["gpus"] == "all" else wanted["gpus"]:
        if str(asked) not in known:
            faults.append(f"this host has no GPU {asked} (lingbi_gpus); it has {', '.join(sorted(known)) or 'none'}")
    return faults + judge_capabilities(seen, wanted)


def judge_capabilities(seen, wanted):
    """A sentence for each GPU that is to serve and that TurboMind has no code for; the server judges likewise at its start."""
    oldest, newest = wanted["capabilities"]
    return [
        f"GPU {gpu['index']} ({gpu['name']}) has compute capability {told(gpu['capability'])}, and TurboMind of LMDeploy 0.4.1 "
        f"has code for {told(oldest)} to {told(newest)} only; leave it out of lingbi_gpus, or set lingbi_gpus: [] for the "
        "CPU engine"
        for gpu in asked_gpus(seen, wanted["gpus"])
        if gpu["capability"] and not list(oldest) <= gpu["capability"] <= list(newest)
    ]


def asked_gpus(seen, asked):
    """The GPUs that are to serve: those that are asked for, and those of the slices that are."""
    if asked == "all":
        return seen["gpus"]
    names = {seen["slices"].get(str(name), str(name)) for name in asked}
    return [gpu for gpu in seen["gpus"] if names & {gpu["index"], gpu["uuid"]}]


def told(capability):
    """A compute capability as NVIDIA writes it."""
    return ".".join(map(str, capability))


def look(wanted):
    """Everything that judge() needs to know."""
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)', read("/etc/os-release"), re.M))
    docker, compose, docker_fault = find_docker()
    gpus, slices, gpu_fault = find_gpus() if wanted["gpus"] else ([], {}, "")
    ports = wanted["ports"] + worker_ports(wanted, gpus)
    return {
        "system": release.get("ID", "unknown"),
        "release": release.get("VERSION_ID", ""),
        "codename": release.get("VERSION_CODENAME", ""),
        "kernel": platform.release(),
        "memory_mib": int(re.search(r"MemTotal:\s+(\d+)", read("/proc/meminfo"))[1]) >> 10,
        "disks": {place: shutil.disk_usage(existing(place)).free / (1 << 30) for place in places(docker)},
        "is_installed": any(
            os.path.exists(os.path.join(wanted["directory"], name, "running.json")) for name in ("server", "gateway")
        ),
        "has_address": has_address(wanted["address"]),
        "has_toolkit": bool(shutil.which("nvidia-ctk")),
        "docker": docker,
        "compose": compose,
        "docker_fault": docker_fault,
        "taken_ports": others_ports(ports),
        "gpus": gpus,
        "slices": slices,
        "gpu_fault": gpu_fault,
    }


def read(path):
    with open(path) as file:
        return file.read()


def existing(path):
    """The path itself if it exists, else the nearest folder above it that does."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def places(docker):
    """Folders that need room: where the engine keeps images and volumes, or will."""
    root = run("docker", "info", "--format", "{{.DockerRootDir}}")[1] if docker else ""
    return [root if root.startswith("/") else DOCKER_ROOT]


def worker_ports(wanted, gpus):
    """Ports of this host's workers; filter_plugins/hosts.py counts the workers in the same way."""
    if not wanted["first_port"]:
        return []
    asked = len(gpus) if wanted["gpus"] == "all" else len(wanted["gpus"])
    return [wanted["first_port"] + worker for worker in range(wanted["workers"] or max(1, asked))]


def has_address(address):
    """Whether an address is an IP address of this host."""
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except (OSError, ValueError):
        return False
    return True


def run(*command):
    """(exit status, output); 127 if the program is not installed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S)
    except FileNotFoundError:
        return 127, ""
    except subprocess.TimeoutExpired:
        return 124, f"no answer within {COMMAND_TIMEOUT_S} s"
    return done.returncode, (done.stdout if done.returncode == 0 else done.stderr or done.stdout).strip()


def find_docker():
    """(engine's version, Compose's version, fault); all empty if Docker is not installed."""
    status, said = run("docker", "version", "--format", "{{.Server.Version}}")
    if status == 127:
        return "", "", ""
    if status:
        return "", "", f"a Docker engine is installed but does not answer: {said[-200:]}; start it"
    status, compose = run("docker", "compose", "version", "--short")
    return said, compose.lstrip("v") if status == 0 else "", ""


def others_ports(ports):
    """Ports that another program keeps; a port that a rollout takes at this moment becomes one of ours."""
    deadline = time.monotonic() + STARTING_S
    while others := [port for port in ports if is_taken(port) and not is_ours(port)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)
    return others


def is_taken(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return True
    return False


def is_ours(port):
    """Whether a container of lingbi publishes a port."""
    status, said = run("docker", "ps", "--filter", "label=com.docker.compose.project", "--format", "json")
    rows = [json.loads(line) for line in said.splitlines()] if status == 0 else []
    return any(covers(row["Ports"], port) and "lingbi" in row["Labels"] for row in rows)


def covers(ports, port):
    """Whether Docker's list of published ports, as in `10.0.0.1:23333-23334->23333-23334/tcp`, has a port."""
    found = re.findall(r":(\d+)(?:-(\d+))?->", ports)
    return any(int(first) <= port <= int(last or first) for first, last in found)


def find_gpus():
    """(GPUs, {UUID of a MIG slice: index of its GPU}, fault)."""
    status, said = run("nvidia-smi", "--query-gpu=index,uuid,driver_version,name", "--format=csv,noheader")
    if status == 127:
        return [], {}, "lingbi_gpus asks for GPUs, but nvidia-smi is not installed"
    if status:
        return [], {}, f"nvidia-smi failed: {said[-200:]}"
    names = ("index", "uuid", "driver", "name")
    gpus = [dict(zip(names, (part.strip() for part in line.split(",")), strict=True)) for line in said.splitlines()]
    known = find_capabilities()
    return [gpu | {"capability": known.get(gpu["index"])} for gpu in gpus], slices(run("nvidia-smi", "-L")[1]), ""


def find_capabilities():
    """{index of a GPU: [major, minor]}; empty if the driver is too old to be asked, which is a fault of its own."""
    said = run("nvidia-smi", "--query-gpu=index,compute_cap", "--format=csv,noheader")[1]
    return {
        index: [int(major), int(minor)] for index, major, minor in re.findall(r"^(\d+), *(\d+)\.(\d+)$", said, re.M)
    }


def slices(said):
    """{UUID of a MIG slice: index of its GPU} from the output of `nvidia-smi -L`; pure."""
    found, index = {}, ""
    for line in said.splitlines():
        card, part = re.match(r"GPU (\d+):", line), re.search(r"UUID: (MIG-[^)\s]+)", line)
        index = card[1] if card else index
        found |= {part[1]: index} if part else {}
    return found


def main():
    text = {"type": "str", "required": True}
    whole = {"type": "int", "required": True}
    module = AnsibleModule(
        argument_spec={
            "kernel_minimum": text,
            "docker_minimum": text,
            "compose_minimum": text,
            "driver_minimum": text,
            "capabilities": {"type": "list", "elements": "list", "required": True},
            "gpus": {"type": "raw", "required": True},
            "disk_free_gib": whole,
            "update_disk_free_gib": whole,
            "memory_gib": whole,
            "clock_skew_s": whole,
            "directory": {"type": "path", "required": True},
            "ports": {"type": "list", "elements": "int", "required": True},
            "first_port": whole,
            "workers": whole,
            "address": text,
            "needs_engine": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    seen = look(module.params)
    module.exit_json(changed=False, faults=judge(seen, module.params), time_s=time.time(), **seen)


if __name__ == "__main__":
    main()
