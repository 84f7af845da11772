"""Plans a start on this machine: everything is decided, or refused, before anything runs."""

import argparse
import errno
import socket
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lingbi import planner
from lingbi.client.addresses import url_host
from lingbi.errors import ConfigurationError
from lingbi.launch.edge import Front, decide_front
from lingbi.model.resources import Resources
from lingbi.model.wanted import WantedModel, spelled
from lingbi.placement import record
from lingbi.placement.seats import Placement
from lingbi.settings import Settings

PAGE_REQUESTS = 64  # concurrent requests of all visitors together, independent of LINGBI_KEY_CONCURRENCY


@dataclass(frozen=True)
class Plan:
    """Everything that is decided before the start; front: page and gateway, or None without them."""

    settings: Settings
    placement: Placement
    front: Front | None

    @property
    def url(self) -> str:
        return self.front.url if self.front else self.worker_url(0)

    def worker_url(self, worker: int) -> str:
        """Base URL of a worker, as seen from this machine."""
        return f"http://{worker_address(self.settings, worker)}"


def resolved(plan: Plan) -> Settings:
    """The settings with all decisions filled in, so that workers do not decide again.

    What each worker serves is in the placement's file, which write_placement writes.
    """
    update = {"model": asked_models(plan.placement), "engine": plan.placement.choice.engine}
    file = record.file_in(plan.settings.state_dir.absolute())
    return plan.settings.model_copy(update=update | {"placement_file": file})


def asked_models(placement: Placement) -> str:
    """The value of LINGBI_MODEL that decides the same again: without auto, and with the folders' whole paths."""
    seats = [seat.assignment for seat in placement.seats]
    counts = Counter(seat.source for seat in seats)
    if len(counts) == 1:
        return seats[0].source
    return spelled([WantedModel(source, count) for source, count in counts.items()])


def write_placement(plan: Plan) -> None:
    """Write down what each worker serves, for the workers and for who wants to know."""
    record.write(record.file_in(plan.settings.state_dir), plan.placement.seats)


def worker_address(settings: Settings, worker: int) -> str:
    """HOST:PORT of a worker, as seen from this machine."""
    return f"{url_host(settings.host)}:{settings.port + worker}"


def listed_server(settings: Settings, placement: Placement, worker: int) -> str:
    """A worker as LINGBI_GATEWAY_SERVERS lists it: with its model where there are several."""
    address, model = worker_address(settings, worker), placement.labels()[worker]
    return f"{model}={address}" if model else address


def page_key_file(settings: Settings) -> Path:
    """The file with the page's own API key in plain text."""
    return settings.page_key_file or settings.state_dir / "ui-key"


def decide(
    settings: Settings, options: argparse.Namespace, resources: Resources, held: frozenset[int] = frozenset()
) -> Plan:
    """The planner's placement, then page and gateway, then the ports. Raises ConfigurationError.

    held: ports of what will be replaced, which will be free.
    """
    placement = planner.plan(settings, resources)
    front = None
    if not options.server_only:
        servers = [listed_server(settings, placement, worker) for worker in range(placement.workers)]
        front = decide_front(
            settings.state_dir,
            servers,
            page_key_file(settings),
            options.host,
            options.port,
            settings.allowed_origins,
        )
    asked = [("LINGBI_PORT", settings.host, settings.port + worker) for worker in range(placement.workers)]
    asked += [(name, host, port) for name, (host, port) in (front.ports if front else {}).items()]
    for name, host, port in asked:
        if port not in held:
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
                f"cannot listen on {host} port {port}: {error.strerror}; {_remedy(error, setting)}"
            ) from None


def _remedy(error: OSError, setting: str) -> str:
    """What to do about a port on which this user cannot listen."""
    if error.errno == errno.EACCES:
        return f"only root may take it: set {setting} to one above 1023"
    if error.errno == errno.EADDRINUSE:
        return f"end what uses it, or set {setting}"
    return f"set {setting.replace('PORT', 'HOST')} to an address of this machine"
