"""Plans a start on this machine: everything is decided, or refused, before anything runs."""

import argparse
import socket
from dataclasses import dataclass
from pathlib import Path

from lingbi import planner
from lingbi.errors import ConfigurationError
from lingbi.launch.addresses import url_host
from lingbi.launch.edge import Front, decide_front
from lingbi.model.resources import Resources
from lingbi.settings import Settings


@dataclass(frozen=True)
class Plan:
    """Everything that is decided before the start; front: page and gateway, or None without them."""

    settings: Settings
    placement: planner.Placement
    front: Front | None

    @property
    def url(self) -> str:
        return self.front.url if self.front else self.worker_url(0)

    def worker_url(self, worker: int) -> str:
        """Base URL of a worker, as seen from this machine."""
        return f"http://{worker_address(self.settings, worker)}"


def resolved(plan: Plan) -> Settings:
    """The settings with all decisions filled in, so that workers do not decide again."""
    found = plan.placement.found
    update = {"model": found.hub_id or str(found.path.resolve()), "engine": plan.placement.choice.engine}
    return plan.settings.model_copy(update=update)


def worker_address(settings: Settings, worker: int) -> str:
    """HOST:PORT of a worker, as seen from this machine."""
    return f"{url_host(settings.host)}:{settings.port + worker}"


def page_key_file(settings: Settings) -> Path:
    """The file with the page's own API key in plain text."""
    return settings.state_dir / "ui-key"


def decide(settings: Settings, options: argparse.Namespace, resources: Resources) -> Plan:
    """The planner's placement, then page and gateway, then the ports. Raises ConfigurationError."""
    placement = planner.plan(settings, resources)
    front = None
    if not options.server_only:
        servers = [worker_address(settings, worker) for worker in range(placement.workers)]
        front = decide_front(
            settings.state_dir,
            servers,
            page_key_file(settings),
            options.host,
            options.port,
            settings.allowed_origins,
        )
    for port in range(settings.port, settings.port + placement.workers):
        check_port(settings.host, port, "LINGBI_PORT")
    for name, (host, port) in (front.ports if front else {}).items():
        check_port(host, port, name)
    return Plan(settings, placement, front)


def check_port(host: str, port: int, setting: str) -> None:
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        if family == socket.AF_INET6:  # as the servers do; a listener on IPv4 does not conflict
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {host} port {port}: {error.strerror}; end what uses it, or set {setting}"
            ) from None
