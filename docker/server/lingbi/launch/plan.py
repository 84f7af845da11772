"""What a start on this machine will be: everything that is decided, and refused, before anything runs."""

import argparse
import socket
from dataclasses import dataclass
from pathlib import Path

from lingbi.errors import ConfigurationError
from lingbi.launch.edge import Front, decide_front
from lingbi.model import catalogue
from lingbi.model.catalogue import ModelFacts
from lingbi.model.folder import inspect
from lingbi.model.gpus import TURBOMIND, Choice, Gpu, choose_engine, find_gpus
from lingbi.model.host_memory import available_mib, check_memory
from lingbi.model.resolve import Found, choose_model
from lingbi.model.sizing import Fit
from lingbi.settings import Settings
from lingbi.weights.start import check_may_fetch


@dataclass(frozen=True)
class Plan:
    """Everything decided before anything is started."""

    settings: Settings
    found: Found
    served_name: str
    choice: Choice
    workers: int
    front: Front | None
    fits: list[Fit]  # of each worker, on GPUs

    @property
    def url(self) -> str:
        return self.front.url if self.front else self.worker_url(0)

    def worker_url(self, worker: int) -> str:
        """Base URL of a worker, as seen from this machine."""
        return f"http://{worker_address(self.settings, worker)}"


def resolved(plan: Plan) -> Settings:
    """The settings with what was decided, so that workers decide nothing anew."""
    update = {"model": plan.found.hub_id or str(plan.found.path.resolve()), "engine": plan.choice.engine}
    return plan.settings.model_copy(update=update)


def worker_address(settings: Settings, worker: int) -> str:
    """HOST:PORT of a worker, as seen from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"[{host}]:{settings.port + worker}" if ":" in host else f"{host}:{settings.port + worker}"


def page_key_file(settings: Settings) -> Path:
    """The page's own API key in plain."""
    return settings.state_dir / "ui-key"


def decide(settings: Settings, options: argparse.Namespace) -> Plan:
    """Choose model, engine and workers, and check all that can be checked before a start."""
    gpus = find_gpus()
    choice = choose_engine(settings.engine, gpus)
    found = choose_model(settings, choice.engine, gpus, settings.workers or len(gpus))
    check_may_fetch(found, settings)
    model = facts_of(found)
    workers = count_workers(settings, choice.engine, gpus)
    fits = check_memory(model, choice.engine, gpus, workers, available_mib(), settings) if model else []
    front = None
    if not options.server_only:
        servers = [worker_address(settings, worker) for worker in range(workers)]
        front = decide_front(settings.state_dir, servers, page_key_file(settings), options.host, options.port)
    for port in range(settings.port, settings.port + workers):
        check_port(settings.host, port, "LINGBI_PORT")
    for name, (host, port) in (front.ports if front else {}).items():
        check_port(host, port, name)
    return Plan(settings, found, model.served_name if model else found.served_name, choice, workers, front, fits)


def facts_of(found: Found) -> ModelFacts | None:
    """What is known of a model. One that is not fetched yet is known from the catalogue, or not at all (None)."""
    return catalogue.find(found.hub_id or "") if found.is_to_come else inspect(found.path)


def count_workers(settings: Settings, engine: str, gpus: list[Gpu]) -> int:
    """How many a start has. Raises ConfigurationError for more than there are GPUs for them."""
    workers = settings.workers or (len(gpus) if engine == TURBOMIND else 1)
    if engine == TURBOMIND and workers > len(gpus):
        raise ConfigurationError(f"LINGBI_WORKERS={workers}, and {len(gpus)} GPU(s) are here; one worker takes one GPU")
    return workers


def check_port(host: str, port: int, setting: str) -> None:
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        if family == socket.AF_INET6:  # as the servers listen; one on IPv4 is no hindrance
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {host} port {port}: {error.strerror}; end what uses it, or set {setting}"
            ) from None
