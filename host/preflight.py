"""Checks before containers are started. Each check gets the facts as arguments and raises Refusal with a remedy."""

from __future__ import annotations

import errno
import os
import re
import socket
from pathlib import Path

from host.errors import Refusal
from host.machine import NEWEST_CAPABILITY, OLDEST_CAPABILITY, OLDEST_COMPOSE, OLDEST_ENGINE, Machine
from host.schema import remedy

TOOLKIT = "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html"
LAST_PORT = 65535
ENGINE = "https://docs.docker.com/engine/install/"


def check_engine(machine: Machine) -> None:
    """Check that there is a usable engine with Compose."""
    if machine.engine is None:
        raise Refusal(f"no Docker engine answers here: {machine.engine_fault}; install and start one ({ENGINE})")
    if machine.engine < OLDEST_ENGINE:
        raise Refusal(
            f"the Docker engine is {told(machine.engine)}; {told(OLDEST_ENGINE)} or later is needed ({ENGINE})"
        )
    if machine.compose is None:
        raise Refusal(f"`docker compose` is not here; install the Compose plugin ({ENGINE})")
    if machine.compose < OLDEST_COMPOSE:
        raise Refusal(
            f"Docker Compose is {told(machine.compose)}; {told(OLDEST_COMPOSE)} or later is needed ({ENGINE})"
        )


def check_runtime(machine: Machine) -> None:
    """Check that the engine can give GPUs to containers, if there are any."""
    if machine.gpus and not machine.has_nvidia_runtime:
        raise Refusal(
            f"{len(machine.gpus)} GPU(s) are here, and the Docker engine has no NVIDIA runtime; install the NVIDIA "
            f"Container Toolkit ({TOOLKIT}), then `sudo nvidia-ctk runtime configure && sudo systemctl restart docker`"
        )


def check_gpus(values: dict[str, str], machine: Machine, uses_gpus: bool) -> None:
    """Check that the requested GPUs exist."""
    if not uses_gpus:
        return
    if not machine.gpus:
        raise Refusal("no NVIDIA GPU is here (`nvidia-smi -L` lists none); use --engine cpu")
    for wanted in filter(None, values.get("LINGBI_GPU_IDS", "").replace(" ", "").split(",")):
        if not any(is_named(wanted, line) for line in machine.gpus):
            raise Refusal(
                f"LINGBI_GPU_IDS={values['LINGBI_GPU_IDS']}: there is no GPU {wanted}; here are: {'; '.join(machine.gpus)}"
            )
    count = values.get("LINGBI_GPU_COUNT", "all")
    cards = [line for line in machine.gpus if line.startswith("GPU ")]
    if count != "all" and (not count.isdigit() or not 0 < int(count) <= len(cards)):
        raise Refusal(f"LINGBI_GPU_COUNT={count}: give `all` or a number from 1 to {len(cards)}, the GPUs here")


def is_named(wanted: str, line: str) -> bool:
    """Whether a line of `nvidia-smi -L` is about the GPU or slice of this index or UUID."""
    return line.startswith(f"GPU {wanted}:") or re.search(rf"UUID: {re.escape(wanted)}\)", line) is not None


def check_capability(values: dict[str, str], machine: Machine) -> None:
    """Check that the server has code for the requested GPUs; a card whose compute capability is not known passes."""
    cards = [line for line in machine.gpus if line.startswith("GPU ")]
    known = dict(enumerate(machine.capabilities))
    for index, card in enumerate(cards):
        capability = known.get(index)
        if card in requested(values, machine) and capability and not is_supported(capability):
            raise Refusal(
                f"{card} has compute capability {told(capability)}, and TurboMind of LMDeploy 0.4.1 has code for "
                f"{told(OLDEST_CAPABILITY)} to {told(NEWEST_CAPABILITY)} only; name the others in LINGBI_GPU_IDS, or use --engine cpu"
            )


def is_supported(capability: tuple[int, ...]) -> bool:
    return OLDEST_CAPABILITY <= capability <= NEWEST_CAPABILITY


def requested(values: dict[str, str], machine: Machine) -> list[str]:
    """The cards that the settings name, as lines of `nvidia-smi -L`: by index, by UUID, by a slice, or the first ones."""
    ids = list(filter(None, values.get("LINGBI_GPU_IDS", "").replace(" ", "").split(",")))
    cards: list[str] = []
    named: list[str] = []
    for line in machine.gpus:  # a card's slices follow it
        cards += [line] if line.startswith("GPU ") else []
        if cards and any(is_named(wanted, line) for wanted in ids):
            named.append(cards[-1])
    count = values.get("LINGBI_GPU_COUNT", "all")
    return named if ids else cards[: int(count) if count.isdigit() else None]


def check_port(address: str, port: str) -> None:
    """Check that nothing listens yet where the gateway will be published. Ports that only root may take are Docker's to try."""
    if not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= LAST_PORT:
        raise Refusal(f"LINGBI_GATEWAY_PORT={port!r}: give a whole number from 1 to {LAST_PORT} (--port)")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.strip("[]"), int(port)))
        except PermissionError:
            return
        except OSError as error:
            is_taken = error.errno == errno.EADDRINUSE
            advice = "end what uses it, or give --port" if is_taken else "give an address of this machine (--host)"
            raise Refusal(f"cannot publish on {address} port {port}: {error}; {advice}") from None


def check_folder(values: dict[str, str], name: str, needed: list[str]) -> None:
    """Check that a mounted folder holds the files that are needed."""
    if not values.get(name):
        return
    folder = Path(values[name])
    if folder.is_dir() and not os.access(folder, os.X_OK, effective_ids=True):
        return  # closed to this user, which the containers' user need not be; the images look into it
    missing = [file for file in needed if not (folder / file).is_file()]
    if not folder.is_absolute() or not folder.is_dir() or missing:
        what = f"has no {', '.join(missing)}" if folder.is_dir() else "is no folder with an absolute path"
        raise Refusal(f"{name}={folder}: {what}; give the folder's whole path")


def check_compose_files(compose_files: str, root: Path) -> None:
    """Check that the files are there which make up the stack: one that is misspelt would be missed as if nobody had asked for it."""
    for name in filter(None, compose_files.split(":")):
        if not (root / name).is_file():
            known = [file.name for file in root.glob("compose*.yaml")]
            raise Refusal(f"COMPOSE_FILE in .env names {name}, and {root / name} is not there; {remedy(name, known)}")


def check_secrets(compose_files: str, secrets: Path) -> None:
    """Check that the files exist which the chosen overrides mount."""
    needs = {"compose.logins.yaml": ("logins/logins", "make it with scripts/login add NAME")}
    needs["compose.hub-token.yaml"] = ("hub-token", "write the token of ModelScope there")
    needs["compose.database.yaml"] = ("database-password", "write the password of LINGBI_DATABASE_URL there")
    for override in compose_files.split(":"):
        name, source = needs.get(override, ("", ""))
        if name and not (secrets / name).is_file():
            raise Refusal(f"COMPOSE_FILE in .env holds {override}, and {secrets / name} is not there; {source}")


def check_subnet(text: str) -> None:
    """Check that these are the first three numbers of a private network."""
    if not re.fullmatch(r"(10\.\d{1,3}|172\.(1[6-9]|2\d|3[01])|192\.168)\.\d{1,3}", text):
        raise Refusal(f"LINGBI_SUBNET={text!r}: give the first three numbers of a private network, as in 172.30.76")


def check_writable(folder: Path) -> None:
    """Check that this user can write here: .env, secrets and Prometheus's targets are written beside compose.yaml."""
    if not os.access(str(folder), os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise Refusal(
            f"{folder} cannot be written by user {os.geteuid()}, and scripts/up keeps .env and secrets/ there; use a copy "
            "that is yours, or `docker compose up --wait`, which writes nothing there"
        )


def check_owner(project: str, named: str, folders: list[str], root: Path) -> None:
    """Check that no other folder's stack runs under this project's name, unless .env here names the project itself.

    named: COMPOSE_PROJECT_NAME of .env, empty if it is not there; folders: those of the project's running containers.
    """
    others = sorted({folder for folder in folders if Path(folder) != root and Path(folder).is_dir()})
    if others and not named:
        raise Refusal(
            f"the stack `{project}` of {others[0]} runs here. For a second one beside it, write another "
            f"COMPOSE_PROJECT_NAME, LINGBI_SUBNET and LINGBI_GATEWAY_PORT into {root / '.env'}; to go on with that one "
            f"from here, copy its .env and add COMPOSE_PROJECT_NAME={project}"
        )


def told(version: tuple[int, ...] | None) -> str:
    return ".".join(map(str, version)) if version else "none"
