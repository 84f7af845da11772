"""The containers' networks among those of this machine: what is in their way, a /24 that is free, and whether they move."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_network
from pathlib import Path
from typing import Any

from host.errors import Refusal
from host.machine import run

ROUTES = Path("/proc/net/route")
PROJECT = "com.docker.compose.project"
WIDEST = 8  # a wider route is no network, but a way to everything, in two halves perhaps, as VPNs set it
THIRD = 76  # the third number of proposals, as in the default

Network = dict[str, Any]  # a network in the output of `docker network inspect`, or in that of `docker compose config`


@dataclass(frozen=True)
class Taken:
    """A network in use. what: for people; is_routed: reached through a gateway, so that perhaps nobody is there."""

    network: IPv4Network
    what: str
    is_routed: bool = False


def check_free(subnet: str, project: str, found: list[Network], routes: list[Taken]) -> None:
    """Raise Refusal where the containers' /24 overlaps with a network of this machine, or with another of Docker's.

    subnet: its first three numbers; found: Docker's networks. The project's own are not in its way.
    """
    wanted = ip_network(f"{subnet}.0/24")
    others = [network for network in found if project_of(network) != project]
    bridges = {bridge_of(network) for network in found}
    taken = [item for network in others for item in taken_by(network)]
    taken += [route for route in routes if route.what not in bridges]
    proposal = free(taken)
    if not proposal:  # where a VPN takes all private networks, its ways are no reason not to start
        taken = [item for item in taken if not item.is_routed]
        proposal = free(taken)
    for item in taken:
        if item.network.overlaps(wanted):
            raise Refusal(
                f"LINGBI_SUBNET={subnet}: {wanted} overlaps with {item.network} of {item.what}; "
                + (f"free is LINGBI_SUBNET={proposal}, in .env" if proposal else "set another one in .env")
            )


def free(taken: list[Taken]) -> str:
    """The first three numbers of a private /24 that overlaps with nothing; empty if there is none."""
    for subnet in candidates():
        network = ip_network(f"{subnet}.0/24")
        if not any(item.network.overlaps(network) for item in taken):
            return subnet
    return ""


def candidates() -> Iterator[str]:
    """What is proposed, the most usual first; some hundred of the many thousand private ones."""
    yield from (f"172.30.{third}" for third in range(THIRD, 256))
    yield from (f"172.{second}.{THIRD}" for second in range(31, 15, -1))
    yield from (f"10.{second}.{THIRD}" for second in range(255, -1, -1))
    yield from (f"192.168.{third}" for third in range(255, -1, -1))


def taken_by(network: Network) -> list[Taken]:
    """The subnets of one of Docker's networks."""
    owner = project_of(network)
    what = f"Docker's network {network['Name']}" + (f" (project {owner})" if owner else "")
    found = [ip_network(subnet) for subnet in subnets_of(network)]
    return [Taken(subnet, what) for subnet in found if isinstance(subnet, IPv4Network)]


def subnets_of(network: Network) -> list[str]:
    return [item["Subnet"] for item in (network.get("IPAM") or {}).get("Config") or [] if item.get("Subnet")]


def project_of(network: Network) -> str:
    return str((network.get("Labels") or {}).get(PROJECT, ""))


def bridge_of(network: Network) -> str:
    """The interface of a bridge network, as routes_of names it."""
    own = (network.get("Options") or {}).get("com.docker.network.bridge.name")
    return f"the interface {own or 'br-' + network['Id'][:12]}"


def routes_of(table: str) -> list[Taken]:
    """The networks to which a machine has a route, by the text of /proc/net/route."""
    rows = [line.split() for line in table.splitlines()[1:]]
    found = [(row[0], address(row[1]), address(row[2]), address(row[7])) for row in rows if len(row) > 7]
    return [
        Taken(IPv4Network(f"{destination}/{mask}", strict=False), f"the interface {interface}", int(gateway) != 0)
        for interface, destination, gateway, mask in found
        if IPv4Network(f"0.0.0.0/{mask}").prefixlen >= WIDEST
    ]


def address(digits: str) -> IPv4Address:
    """An address of /proc/net/route: hexadecimal, in the byte order of a PC."""
    return IPv4Address(bytes.fromhex(digits)[::-1])


def moved(wanted: dict[str, Network], project: str, found: list[Network]) -> list[str]:
    """The project's networks that exist with other subnets than wanted: Docker cannot change them, only make them anew.

    wanted: `networks` of the rendered configuration.
    """
    subnets = {network["Name"]: sorted(subnets_of(network)) for network in found if project_of(network) == project}
    asked = {item["name"]: sorted(entry["subnet"] for entry in configured(item)) for item in wanted.values()}
    return sorted(name for name, given in asked.items() if given and name in subnets and subnets[name] != given)


def configured(network: Network) -> list[dict[str, str]]:
    return [item for item in (network.get("ipam") or {}).get("config") or [] if item.get("subnet")]


def check_alone(names: list[str], project: str, attached: dict[str, str]) -> None:
    """Raise Refusal if containers of others hold networks that have to be made anew. attached: {container: project}."""
    strangers = sorted(name for name, owner in attached.items() if owner != project)
    if names and strangers:
        raise Refusal(
            f"{', '.join(names)} must be made anew for another LINGBI_SUBNET, and {', '.join(strangers)} is attached; "
            f"end it first (docker stop {' '.join(strangers)})"
        )


def look() -> list[Network]:
    """Docker's networks, of all projects."""
    names = run("docker", "network", "ls", "--quiet").stdout.split()
    found: list[Network] = json.loads(run("docker", "network", "inspect", *names).stdout or "[]") if names else []
    return found


def look_at_routes() -> list[Taken]:
    return routes_of(ROUTES.read_text()) if ROUTES.exists() else []


def attached_to(names: list[str]) -> dict[str, str]:
    """{container: its project} of the running containers on some networks."""
    told = [f"--filter=network={name}" for name in names]
    lines = run("docker", "ps", *told, "--format", f'{{{{.Names}}}} {{{{.Label "{PROJECT}"}}}}').stdout.splitlines()
    return {line.split()[0]: " ".join(line.split()[1:]) for line in lines} if names else {}
