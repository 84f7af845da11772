"""The text of the systemd unit that runs a native installation, and what goes into it. No side effects."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lingbi.deployment import NAMES
from lingbi.errors import ConfigurationError
from lingbi.launch.supervision import STOP_MARGIN_S
from lingbi.settings import PREFIX

PROGRAM = "lingbi.launch.foreground"
NAME = re.compile(r"lingbi[a-z0-9-]{0,40}")
PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./@:+,=~-]*")
GRACE = re.compile(r"(\d{1,6})s?")
FRONT_STOP_S = 25  # scripts/front.conf: after the workers the page may take 15 s, then the gateway 10 s
SUPERVISOR_STOP_S = 5
DEFAULT_STOP_S = 90  # systemd's own, where somebody took the line out
RESTART_S = 15
OPEN_FILES = 65536
STATE_DIR_KEY = "StateDir"
IS_PATH = re.compile(r"_(FILE|DIR|FOLDER|LOCK)$")
SECRET = re.compile(r"(lb-|ms-|sk-)[A-Za-z0-9_-]{16,}")
PASSWORD_IN_URL = re.compile(r"://[^/@\s]*:[^/@\s]+@")
SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
OF_OTHERS = (  # what else of a shell decides how lingbi runs: GPUs, libraries, certificates, ways out, language
    *("CUDA_VISIBLE_DEVICES", "CUDA_HOME", "LD_LIBRARY_PATH", "NVIDIA_VISIBLE_DEVICES", "OMP_NUM_THREADS"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "LANG", "LC_ALL", "TZ"),
    *PROXIES,
    *map(str.upper, PROXIES),
)


@dataclass(frozen=True)
class Unit:
    """One unit. user: who runs a system unit; None for a unit of the user's own systemd."""

    name: str
    root: Path
    state_dir: Path
    command: tuple[str, ...]
    environment: Mapping[str, str]
    user: str | None
    stop_timeout_s: int

    @property
    def file_name(self) -> str:
        return f"{self.name}.service"


def text(unit: Unit) -> str:
    """The unit file.

    Type=exec: the program becomes supervisord, which stays in front. It is not notify, as a first start fetches
    weights for hours, and page and /ready answer from the beginning. KillMode=mixed: SIGTERM goes to supervisord
    alone, which ends the workers first, so that their last answers pass the gateway. A driver or an address that
    comes late after a boot is met by restarts without end; a worker that runs out of memory is supervisord's to
    restart, and no reason to end the others (OOMPolicy).
    """
    paths = sorted({str(unit.root), str(unit.state_dir), unit.environment.get(f"{PREFIX}MODELS_DIR", str(unit.root))})
    is_system = unit.user is not None
    after = ["Wants=network-online.target", "After=network-online.target nvidia-persistenced.service"]
    return "\n".join(
        [
            "# Written by scripts/service install; run it again to change this.",
            "[Unit]",
            f"Description=lingbi in {unit.root}",
            f"Documentation=file://{unit.root}/docs/operations.md",
            *([*after, f"RequiresMountsFor={' '.join(paths)}"] if is_system else []),
            "StartLimitIntervalSec=0",
            "",
            "[Service]",
            "Type=exec",
            *([f"User={unit.user}"] if is_system else []),
            f"WorkingDirectory={unit.root}",
            *(f"Environment={quoted(f'{name}={value}')}" for name, value in sorted(unit.environment.items())),
            f"ExecStart={' '.join(unit.command)}",
            "KillMode=mixed",
            f"TimeoutStopSec={unit.stop_timeout_s}",
            "Restart=on-failure",
            f"RestartSec={RESTART_S}",
            "OOMPolicy=continue",
            f"LimitNOFILE={OPEN_FILES}",
            "TasksMax=infinity",
            "NoNewPrivileges=yes",
            "",
            "[Install]",
            f"WantedBy={'multi-user' if is_system else 'default'}.target",
            "",
            "[X-Lingbi]",
            f"{STATE_DIR_KEY}={unit.state_dir}",
            "",
        ]
    )


def quoted(word: str) -> str:
    """A word as systemd reads it back unchanged. Raises ConfigurationError for a line break."""
    if re.search(r"[\x00-\x1f\x7f]", word):
        raise ConfigurationError(f"{word!r} cannot stand in a unit: it holds a control character; remove that")
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def stated_state_dir(unit_text: str) -> Path | None:
    """The state folder that a unit file of ours names; None for another's file."""
    found = re.search(rf"^{STATE_DIR_KEY}=(.+)$", unit_text, re.M)
    return Path(found[1]) if found else None


def stop_bound_s(unit_text: str) -> int:
    """How long systemd waits before it kills a unit of ours."""
    found = re.search(r"^TimeoutStopSec=(\d+)$", unit_text, re.M)
    return int(found[1]) if found else DEFAULT_STOP_S


def check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ConfigurationError(f"--name {name!r}: give lingbi, or lingbi- and small letters, digits and hyphens")


def check_path(what: str, path: Path) -> None:
    """Raise ConfigurationError for a path that systemd and supervisor would read in another way than it is meant."""
    if not PLAIN_PATH.fullmatch(str(path)):
        raise ConfigurationError(
            f"{what} {str(path)!r} has a space, a % or another special character, which a systemd unit cannot hold "
            "safely; move it to a path of letters, digits and _ . - + @"
        )


def stop_timeout_s(drain_timeout_s: int, is_alone: bool, grace: str | None) -> int:
    """How long systemd waits before it kills: what everything needs at most, or LINGBI_STOP_GRACE where that is longer."""
    needed = drain_timeout_s + STOP_MARGIN_S + (0 if is_alone else FRONT_STOP_S) + SUPERVISOR_STOP_S
    if not grace:
        return needed
    found = GRACE.fullmatch(grace)
    if not found:
        raise ConfigurationError(f"LINGBI_STOP_GRACE={grace!r}: give seconds, as in 90s")
    return max(needed, int(found[1]))


def environment(given: Mapping[str, str], settings: Mapping[str, str], home: str, path: str) -> dict[str, str]:
    """The whole environment of the unit.

    given: the environment of who installs it; settings: what the command line says, and what was decided.
    Raises ConfigurationError for a secret.
    """
    ours = {key: value for key, value in given.items() if key.startswith(PREFIX) and key not in NAMES and value}
    others = {key: given[key] for key in OF_OTHERS if given.get(key)}
    values = {
        key: os.path.abspath(value) if IS_PATH.search(key) else value for key, value in {**ours, **settings}.items()
    }
    for key, value in {**others, **values}.items():
        check_no_secret(key, value)
    return {**others, **values, "HOME": home, "PATH": path}


def check_no_secret(key: str, value: str) -> None:
    """Everybody on the machine may read a unit."""
    if SECRET.search(value) or PASSWORD_IN_URL.search(value):
        raise ConfigurationError(
            f"{key} holds a secret, and everybody on this machine may read a unit; put it into a file, "
            "or unset it here and add it with `systemctl edit` as EnvironmentFile="
        )


def search_path(given: str, tools: Path) -> str:
    """PATH of the unit: that of who installs it, our own nginx, and the system's folders, each once."""
    folders = [folder for folder in given.split(os.pathsep) if PLAIN_PATH.fullmatch(folder)]
    return os.pathsep.join(dict.fromkeys([*folders, *([str(tools)] if tools.is_dir() else []), *SYSTEM_PATH]))
