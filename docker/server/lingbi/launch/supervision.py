"""Starts, watches and stops supervisord, which keeps the workers up."""

import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import SupervisorTransport

from lingbi import files
from lingbi.errors import ConfigurationError, StartError
from lingbi.logs import readable
from lingbi.settings import PREFIX, Settings

CONFIG_FILE = Path(__file__).parents[2] / "supervisord.conf"
STOP_MARGIN_S = 15
POLL_S = 0.2
WORKER, PAGE = "lingbi.worker", "lingbi_ui"
LOGIN = "lingbi"  # name and password on a socket that is its owner's alone (mode 0700); without, supervisor says CRIT
SUPERVISORD, KEEPER = "supervisor.supervisord", "lingbi.launch.pid1"  # in the background, and in front


def wait_until(predicate: Callable[[], object], timeout_s: float, poll_s: float = POLL_S) -> bool:
    """Poll until the predicate holds; False after the timeout."""
    deadline = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > deadline:
            return False
        time.sleep(poll_s)
    return True


def socket_path(state_dir: Path) -> Path:
    """Where supervisord listens."""
    return files.socket_path(state_dir, "supervisor")


@contextlib.contextmanager
def only_one(state_dir: Path) -> Iterator[None]:
    """Hold the lock of a state folder, so that two starts cannot run at once."""
    (state_dir / "run").mkdir(parents=True, exist_ok=True)
    with (state_dir / "run" / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"another scripts/up is at work on {state_dir}; wait for it") from None
        yield


def gateway_folders(state_dir: Path) -> tuple[Path, Path]:
    """Where the gateway may render: in the state folder, or for root under /var/lib (see launch/edge.py)."""
    digest = hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:12]
    return state_dir / "gateway", Path(f"/var/lib/lingbi-gateway-{digest}")


def environment(settings: Settings, workers: int) -> dict[str, str]:
    """The environment of supervisord and the workers: every setting, and what supervisord.conf refers to."""
    values: dict[str, Any] = {
        PREFIX + name.upper(): value for name, value in settings.model_dump().items() if value is not None
    }
    values[f"{PREFIX}WORKERS"] = workers
    values["HF_HOME"] = settings.state_dir / "cache" / "huggingface"
    values["SERVER_PYTHON"] = sys.executable
    values["SUPERVISOR_SOCKET"] = socket_path(settings.state_dir)
    values["SUPERVISOR_LOGIN"] = LOGIN
    values["SUPERVISOR_INCLUDE"] = included(settings)
    values["SUPERVISOR_STOP_WAIT_S"] = settings.drain_timeout_s + STOP_MARGIN_S
    return {key: str(value) for key, value in values.items()}


def included(settings: Settings, *others: Path, is_container: bool = False) -> str:
    """The files of programs besides the workers, as supervisord.conf includes them: the arbiter's, and others."""
    demand = ["demand.conf", "demand-container.conf"][: 1 + is_container] if settings.on_demand else []
    return " ".join(map(str, [*others, *(CONFIG_FILE.with_name(name) for name in demand)]))


def command_of(module: str, *options: str) -> list[str]:
    """The command line of supervisord. Root stays root by intention, or supervisor says CRIT that it was forgotten."""
    user = ["--user=root"] if os.geteuid() == 0 else []
    return [sys.executable, "-m", module, *user, *options, "-c", str(CONFIG_FILE)]


class Supervisor:
    """The supervisord of one state folder."""

    def __init__(self, state_dir: Path):
        self.state_dir = state_dir
        self.pid_file = state_dir / "run" / "supervisord.pid"
        transport = SupervisorTransport(LOGIN, LOGIN, f"unix://{socket_path(state_dir)}")
        self.rpc: Any = xmlrpc.client.ServerProxy("http://localhost", transport)

    def process(self) -> psutil.Process | None:
        """supervisord's process, or None."""
        try:
            process = psutil.Process(int(self.pid_file.read_text()))
            return process if _is_supervisor(process) else None
        except (OSError, ValueError, psutil.Error):
            return None

    def workers_left(self) -> list[psutil.Process]:
        """Worker processes of this state folder, whatever their parent is."""
        return [process for process in psutil.process_iter() if self._is_ours(process, WORKER)]

    def supervisors_left(self) -> list[psutil.Process]:
        """supervisord processes of this state folder, even if the PID file is not written yet."""
        return [process for process in psutil.process_iter() if self._is_ours(process, SUPERVISORD, KEEPER)]

    def front_left(self) -> list[psutil.Process]:
        """The page's server and the nginx master of this state folder, whatever their parent is."""
        return [item for item in psutil.process_iter() if self._is_ours(item, PAGE) or self._is_nginx(item)]

    def _is_nginx(self, process: psutil.Process) -> bool:
        """Whether this is our nginx. Its title overwrites its environment, so the configuration identifies it."""
        files = [str(folder / "nginx.conf") for folder in gateway_folders(self.state_dir)]
        try:
            title = " ".join(process.cmdline())
            return title.startswith("nginx: master") and any(file in title for file in files)
        except psutil.Error:
            return False

    def _is_ours(self, process: psutil.Process, *modules: str) -> bool:
        try:
            if not set(modules) & set(process.cmdline()):
                return False
            state_dir = process.environ().get(f"{PREFIX}STATE_DIR", "")
            return Path(state_dir).resolve() == self.state_dir.resolve()
        except psutil.Error:
            return False

    def start(self, values: dict[str, str]) -> None:
        """Start supervisord in the background with this environment added to ours."""
        for folder in ("logs", "run"):
            (self.state_dir / folder).mkdir(parents=True, exist_ok=True)
        done = subprocess.run(command_of(SUPERVISORD), env=os.environ | values, capture_output=True, text=True)
        if done.returncode or not wait_until(lambda: self.process(), 10):
            raise StartError(f"supervisord did not start: {(done.stderr or done.stdout).strip()[-500:]}")

    def states(self) -> dict[str, str]:
        """{worker name: supervisor's state name}; empty when supervisord does not answer."""
        try:
            return {item["name"]: item["statename"] for item in self.rpc.supervisor.getAllProcessInfo()}
        except (OSError, xmlrpc.client.Error):
            return {}

    def stop(self, timeout_s: float) -> bool:
        """Drain and stop everything, including child processes; whether anything was running."""
        running = self.supervisors_left() or self.left()
        family = [child for process in running for child in _children(process)]
        for process in running:
            process.terminate()
        psutil.wait_procs(running, timeout=timeout_s)
        leftovers = [*running, *family, *self.left()]
        leftovers += [child for process in leftovers for child in _children(process)]  # nginx's workers too
        for process in leftovers:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(leftovers, timeout=10)
        return bool(running)

    def ports(self) -> frozenset[int]:
        """The ports on which workers, page and gateway listen, while supervisord runs."""
        process = self.process()
        family = _children(process) if process else []
        found = [_listening(child) for child in family]
        return frozenset(port for ports in found for port in ports)

    def left(self) -> list[psutil.Process]:
        """Workers, page and gateway that still run; without supervisord nothing restarts them."""
        return self.workers_left() + self.front_left()


def _is_supervisor(process: psutil.Process) -> bool:
    return bool({SUPERVISORD, KEEPER} & set(process.cmdline()))


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _listening(process: psutil.Process) -> set[int]:
    try:
        connections = process.net_connections(kind="tcp")
    except psutil.Error:
        return set()
    return {item.laddr.port for item in connections if item.status == psutil.CONN_LISTEN}


def log_tail(state_dir: Path, worker: str, lines: int = 15) -> str:
    """The last lines of a worker's log."""
    file = state_dir / "logs" / f"{worker}.log"
    found = file.read_text(errors="replace").splitlines()[-lines:] if file.exists() else []
    return "\n".join(map(readable, found))
