"""Settings of a machine's containers: read by compose.yaml and scripts/up from .env, tolerated by the server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

PREFIX = "LINGBI_"
OTHER_PREFIXES = ("LINGBI_UI_", "LINGBI_GATEWAY_")  # settings of other parts, checked by those


class Setting(NamedTuple):
    """One setting: its name without the prefix, what scripts/up writes (None: only if needed), and its meaning.

    words: a description of the value, if scripts/up determines it; pattern: a regular expression that it has to match.
    """

    name: str
    default: str | None
    help: str
    words: str = ""
    pattern: str = ""


SETTINGS = (
    Setting(
        "VERSION",
        None,
        "tag of the images; a version, as in 1.2.0 or 1.2.0-rc1, never `latest`",
        words="what the file VERSION says",
        pattern=r"[0-9]+(\.[0-9]+)+(-[A-Za-z0-9_.-]{1,100})?",
    ),
    Setting("IMAGE_PREFIX", "lingbi/", "what stands before the images' names: a registry and a folder, with a slash"),
    Setting(
        "PULL_POLICY", None, "never: images that are not here are built; missing: they are pulled from the registry"
    ),
    Setting(
        "INDEX_URL",
        None,
        "package index for Python packages, a mirror of PyPI",
        words="PyPI, or what pip and uv are set to",
    ),
    Setting(
        "PYTHON_MIRROR",
        None,
        "address from which uv fetches CPython's builds; natively",
        words="their own, on GitHub",
    ),
    Setting(
        "APT_MIRROR",
        None,
        "address under which `debian`, `debian-security` and `ubuntu` lie, for packages of images and for a native nginx",
        words="what the base image or the machine has",
    ),
    Setting(
        "BASE_REGISTRY",
        None,
        "what stands before the names of others' images: a registry, with a slash",
        words="Docker Hub",
    ),
    Setting("CA_FILE", None, "certificates to trust while packages are fetched (PEM), where a network has its own"),
    Setting("PUBLISH_ADDRESS", "127.0.0.1", "address of this machine on which the gateway is published"),
    Setting("GPU_COUNT", "all", "GPUs of the server: a number, or `all`"),
    Setting("GPU_IDS", None, "GPUs by index, UUID or MIG slice, with commas (compose.gpu-ids.yaml)"),
    Setting("MODEL_FOLDER", None, "weights that are there already, read-only (compose.model-folder.yaml)"),
    Setting("SERVER_ADDRESS", None, "address on which the server is published (compose.model-host.yaml)"),
    Setting("SERVER_PORTS", None, "ports of the workers, as in 23333-23340 (compose.model-host.yaml)"),
    Setting("SERVER_MEMORY", "0", "most memory of the server, as in 32g; 0: no limit"),
    Setting("SERVERS_FOLDER", None, "folder with the gateway's list of servers (compose.servers-folder.yaml)"),
    Setting(
        "AGENTS_ADDRESS", None, "address on which exporters run alone, for a Prometheus elsewhere (compose.agents.yaml)"
    ),
    Setting("GATEWAY_PROJECT", None, "Compose project of the gateway that they watch (compose.agents.yaml)"),
    Setting(
        "DATABASE_ADDRESS",
        None,
        "address on which PostgreSQL runs alone, for the servers of a lab (compose.database-host.yaml)",
    ),
    Setting("DATABASE_PORT", "5432", "port on which it is published (compose.database-host.yaml)"),
    Setting("TLS_FOLDER", None, "folder with certificate.pem and key.pem (compose.tls.yaml)"),
    Setting("STOP_GRACE", "90s", "longest end of server, page and gateway; more than LINGBI_DRAIN_TIMEOUT_S and 15 s"),
    Setting("SUBNET", "172.30.76", "first three numbers of the containers' own network"),
    Setting("MONITORING_ADDRESS", "127.0.0.1", "address on which Grafana is published"),
    Setting("MONITORING_PORT", "3000", "port on which Grafana is published"),
)
NAMES = frozenset(PREFIX + setting.name for setting in SETTINGS)


def is_another_parts(key: str) -> bool:
    """Whether a variable is a setting of another part, which the server ignores."""
    return key in NAMES or key.startswith(OTHER_PREFIXES)


def fault_in(environment: Mapping[str, str]) -> str:
    """A sentence about the first of these settings whose value does not match its pattern, or ""."""
    for setting in SETTINGS:
        value = environment.get(PREFIX + setting.name)
        if value and setting.pattern and not re.fullmatch(setting.pattern, value):
            return f"{PREFIX}{setting.name}={value!r}: not usable ({setting.help})"
    return ""
