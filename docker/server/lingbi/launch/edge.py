"""The page and the gateway on the server's own machine, beside its workers, for scripts/up.

Both parts have their own settings (`LINGBI_UI_…`, `LINGBI_GATEWAY_…`). What they need to know about each other
and about the workers is determined here, and values in the environment take precedence.
"""

import importlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from lingbi.client.addresses import url_host
from lingbi.errors import ConfigurationError, StartError
from lingbi.launch.supervision import POLL_S, Supervisor, gateway_folders, log_tail

ROOT = Path(__file__).parents[4]
PROGRAMS = ROOT / "scripts" / "front.conf"
UI_PYTHON = ROOT / ".venv-ui" / "bin" / "python"
PAGE_TIMEOUT_S = 120
LOGINS = "logins"  # written by scripts/login
GATEWAY, UI = "LINGBI_GATEWAY_", "LINGBI_UI_"
EVERYWHERE = ":/usr/sbin:/usr/local/sbin"  # where nginx is often installed, outside an ordinary user's PATH


@dataclass(frozen=True)
class Front:
    """Page and gateway as they will run: their environment, the gateway's settings, (host, port) by setting."""

    values: dict[str, str]
    gateway: Any  # lingbi_gateway's Settings
    ports: dict[str, tuple[str, int]]

    @property
    def url(self) -> str:
        """The gateway's base URL, as seen from this machine."""
        scheme = "http" if self.gateway.tls == "off" else "https"
        return f"{scheme}://{url_host(self.gateway.host)}:{self.gateway.port}"

    @property
    def ca_file(self) -> str | None:
        """The self-signed certificate, with which clients can verify the gateway; None if there is none."""
        return str(self.gateway.dir / "tls" / "certificate.pem") if self.gateway.tls == "generated" else None


def decide_front(
    state_dir: Path, servers: list[str], ui_key_file: Path, host: str | None, port: int | None, allowed_origins: str
) -> Front:
    """The settings of page and gateway. Raises ConfigurationError for a bad setting or a missing part.

    servers: HOST:PORT of each worker; host, port: the gateway's address from the command line;
    allowed_origins: the same value as for the servers.
    """
    if not UI_PYTHON.exists():
        raise ConfigurationError(
            f"{UI_PYTHON} is not there; start with scripts/up, which installs it, or --server-only"
        )
    given = {key: value for key, value in os.environ.items() if key.startswith((GATEWAY, UI))}
    listening = {f"{GATEWAY}HOST": host, f"{GATEWAY}PORT": port and str(port)}
    given |= {key: value for key, value in listening.items() if value}
    nginx = shutil.which("nginx", path=os.environ.get("PATH", os.defpath) + EVERYWHERE)
    defaults = {f"{GATEWAY}SERVERS": ",".join(servers), f"{GATEWAY}DIR": str(gateway_folder(state_dir))}
    defaults |= {f"{GATEWAY}NGINX": nginx or "nginx", f"{GATEWAY}ALLOWED_ORIGINS": allowed_origins}
    defaults |= {f"{UI}API_KEY_FILE": str(ui_key_file), f"{UI}FILES_DIR": str(state_dir / "pictures")}
    if (state_dir / LOGINS).exists():
        defaults[f"{UI}LOGIN_FILE"] = str(state_dir / LOGINS)
    values = defaults | given
    gateway, ui = gateway_settings(values), ui_settings(values)
    values.setdefault(f"{GATEWAY}UI", f"{url_host(ui.host)}:{ui.port}")
    values.setdefault(f"{UI}API_URL", f"http://{url_host(gateway.inner_host)}:{gateway.inner_port}")
    values["UI_PYTHON"] = str(UI_PYTHON)
    values["PYTHONPATH"] = os.pathsep.join(
        str(ROOT / "docker" / part) for part in ("server", "pictures", "gateway", "ui")
    )
    ports = {f"{GATEWAY}PORT": (gateway.host, gateway.port), f"{UI}PORT": (ui.host, ui.port)}
    ports[f"{GATEWAY}INNER_PORT"] = gateway.inner_host, gateway.inner_port
    return Front(values, gateway, ports)


def gateway_settings(values: dict[str, str]) -> Any:
    """The gateway's settings; also checks that its nginx can be used. Raises ConfigurationError."""
    settings, nginx = (importlib.import_module(f"lingbi_gateway.{name}") for name in ("settings", "nginx"))
    try:
        found = settings.load_settings(values)
        nginx.version(found.nginx)
        if os.geteuid() == 0 and found.dir.exists():
            nginx.check_reachable(found.dir.resolve())
    except settings.ConfigurationError as error:
        raise ConfigurationError(f"{error}; or start without page and gateway: scripts/up --server-only") from None
    return found


def ui_settings(values: dict[str, str]) -> Any:
    """The page's settings. Raises ConfigurationError."""
    settings = importlib.import_module("lingbi_ui.settings")
    try:
        return settings.load_settings(values)
    except settings.ConfigurationError as error:
        raise ConfigurationError(str(error)) from None


def gateway_folder(state_dir: Path) -> Path:
    """Where the gateway renders its configuration: usually in the state folder.

    When root starts it, nginx's unprivileged processes may have no access there; then it is a folder under /var/lib,
    which no system empties.
    """
    inside, folder = gateway_folders(state_dir)
    if os.geteuid() or all(part.stat().st_mode & 0o001 for part in (state_dir, *state_dir.parents)):
        return inside
    folder.mkdir(exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
        raise ConfigurationError(f"{folder} belongs to somebody else; remove it, or set {GATEWAY}DIR")
    folder.chmod(0o711)  # independent of the umask
    return folder


def wait_front(front: Front, supervisor: Supervisor, failed_states: set[str]) -> None:
    """Wait until the gateway serves the page. Raises StartError with the end of the log of the part that failed."""
    deadline = time.monotonic() + PAGE_TIMEOUT_S
    while not _page_comes(front):
        states = supervisor.states()
        for name in ("gateway", "ui"):
            if states.get(name, "UNKNOWN") in failed_states or time.monotonic() > deadline:
                why = f"ended ({states.get(name)})" if time.monotonic() < deadline else "did not answer"
                raise StartError(f"{name} {why}; the end of its log:\n{log_tail(supervisor.state_dir, name)}")
        time.sleep(POLL_S)


def _page_comes(front: Front) -> bool:
    try:
        return httpx.get(front.url, timeout=10, trust_env=False, verify=False).status_code == 200
    except httpx.HTTPError:
        return False
