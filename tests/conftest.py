"""What all tests share: the GPU mark, and servers started as users start them."""

import contextlib
import fcntl
import functools
import json
import os
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from lingbi.commands import MODULES
from lingbi.launch.supervision import wait_until
from lingbi.model.gpus import find_gpus

pytest_plugins = ["tests.containers.fixtures", "tests.fast", "tests.postgres"]
ROOT = Path(__file__).parents[1]
DEMO = ROOT / "docker/server/models/demo"
NETWORK = Path("/var/lock/lingbi-tests-network.lock")
LONGEST = ("lab", "tests/system/test_wedged.py", "tests/weights/test_geometries.py")  # minutes, of few tests
BESIDE_NO_LAB = ("tests/compose/", "tests/images/", "tests/host/test_bundle", "tests/host/images/test_digests")
MOST_WORKERS = 3  # that a test starts without choosing their ports
UP_S = 540  # a published tower takes minutes on a busy machine
not_run = set()


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(config, items):
    """Take tests that need a GPU out where there is none; have one process run all that share a lab, or a browser."""
    if not find_gpus():
        left_out = [item for item in items if item.get_closest_marker("gpu")]
        not_run.update(item.nodeid for item in left_out)
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group_of(item)))


def group_of(item) -> str:
    """The name of the tests that run in one process with this one, since they share what is dear to make."""
    if "bare_lab" in item.fixturenames:
        return "lab"
    if "chromium" in item.fixturenames and "docker_engine" not in item.fixturenames:
        return "browser"
    return str(item.path.relative_to(ROOT))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give groups out by their number of tests, as pytest-xdist does, within what comes first, later and last."""
    from xdist.scheduler import LoadGroupScheduling

    class InTurn(LoadGroupScheduling):
        def _assign_work_unit(self, node):
            self.workqueue.move_to_end(min(self.workqueue, key=turn_of), last=False)
            super()._assign_work_unit(node)

    return InTurn(config, log)


def turn_of(group: str) -> int:
    """A run lasts as long as its last group, so long ones begin first; two that use the engine slow each other down."""
    return 0 if group in LONGEST else 2 if group.startswith(BESIDE_NO_LAB) else 1


@pytest.hookimpl(hookwrapper=True, tryfirst=True)  # before pytest-timeout begins to count
def pytest_runtest_protocol(item):
    """Containers that come and go change this machine's networks, which breaks a browser's connections: never both at once."""
    changes = "docker_engine" in item.fixturenames and not item.get_closest_marker("steady_network")
    if not changes and "chromium" not in item.fixturenames:
        yield
        return
    with NETWORK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH if changes else fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session", autouse=True)
def shared_authorities():
    """Have all clients of this process share what they trust, unless told otherwise: each would read it for itself."""
    with pytest.MonkeyPatch.context() as patch:
        for transport in (httpx.HTTPTransport, httpx.AsyncHTTPTransport):
            patch.setattr(transport, "__init__", with_authorities(transport.__init__))
        yield


def with_authorities(initialize):
    @functools.wraps(initialize)
    def initialize_with_them(self, verify=True, cert=None, trust_env=True, **options):
        if verify is True:
            verify = authorities(trust_env, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        initialize(self, verify=verify, cert=cert, trust_env=trust_env, **options)

    return initialize_with_them


@functools.cache
def authorities(trust_env: bool, file: str | None, folder: str | None) -> ssl.SSLContext:
    """What httpx trusts, where the environment names this file or folder."""
    return httpx.create_ssl_context(trust_env=trust_env)


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # this is one of several processes
        session.config.workeroutput["not_run"] = sorted(not_run)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    not_run.update(getattr(node, "workeroutput", {}).get("not_run", ()))


def pytest_terminal_summary(terminalreporter):
    if not_run:
        terminalreporter.section("not run: no NVIDIA GPU here")
        for nodeid in sorted(not_run):
            terminalreporter.line(nodeid)


@contextlib.contextmanager
def suspended(*processes: psutil.Process):
    """Processes that do nothing in the block, and go on after it in the reverse order."""
    with contextlib.ExitStack() as held:
        for process in processes:
            process.suspend()
            held.callback(process.resume)
        yield


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def free_ports(count: int) -> int:
    """The first of so many ports in a row on which nobody listens, as several workers need them."""
    while True:
        first = free_port()
        with contextlib.ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except (OSError, OverflowError):
                continue
            return first


def answers(url: str) -> bool:
    """Whether a GET of the URL is answered with 200."""
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False


def lingbi(module: str, *arguments, state_dir: Path, timeout_s: float = 300, **environment):
    """Run `python -m lingbi.MODULE` with a state folder of its own; returns the CompletedProcess."""
    return subprocess.run(
        [sys.executable, "-m", MODULES[module], *map(str, arguments)],
        env=clean_environment(state_dir) | environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=state_dir.parent,
    )


def clean_environment(state_dir: Path) -> dict:
    """This process's environment without settings, and with a state folder."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("LINGBI_")}
    ports = {f"LINGBI_{name}PORT": str(free_port()) for name in ("UI_", "GATEWAY_", "GATEWAY_INNER_")}
    ports["LINGBI_PORT"] = str(free_ports(MOST_WORKERS))
    return (
        inherited
        | ports
        | {
            "LINGBI_STATE_DIR": str(state_dir),
            "PYTHONPATH": os.pathsep.join(
                str(ROOT / "docker" / part) for part in ("server", "pictures", "gateway", "ui")
            ),
        }
    )


@contextlib.contextmanager
def running_server(state_dir: Path, *arguments, **environment):
    """A server alone, started by lingbi.launch.up; yields its report, with the key as "key" and "port"."""
    port = free_port()
    command = ("up", "--json", "--server-only", "--port", port, *arguments)
    up = lingbi(*command, state_dir=state_dir, timeout_s=UP_S, **environment)
    assert up.returncode == 0, up.stderr
    report = json.loads(up.stdout.splitlines()[-1])
    try:
        yield report | {"key": Path(report["api_key_file"]).read_text().split()[0], "port": port}
    finally:
        down = lingbi("down", state_dir=state_dir)
        assert down.returncode == 0, down.stderr


@contextlib.contextmanager
def running_worker(state_dir: Path, *command, **environment):
    """One worker process without supervisor; yields {"url", "key", "process", "log"} when it is ready."""
    port = free_port()
    state_dir.mkdir(parents=True, exist_ok=True)
    log = state_dir / "worker.log"
    settings = {"LINGBI_MODEL": "demo", "LINGBI_ENGINE": "cpu", "LINGBI_PORT": str(port)}
    process = subprocess.Popen(
        command or [sys.executable, "-m", "lingbi.worker"],
        env=clean_environment(state_dir) | settings | environment,
        stderr=log.open("a"),
        cwd=ROOT,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        assert wait_until(lambda: process.poll() is not None or answers(f"{url}/ready"), 300)
        assert process.poll() is None, log.read_text()
        key = (state_dir / "api-key").read_text().strip()
        model = httpx.get(f"{url}/ready").json()["model"]
        yield {"url": url, "key": key, "process": process, "log": log, "model": model}
    finally:
        process.kill()
        process.wait(10)


@contextlib.contextmanager
def running_stack(state_dir: Path, *arguments, **environment):
    """Server, page and gateway, started by lingbi.launch.up with the demo model; yields its report with "key" and "ports"."""
    values = clean_environment(state_dir)
    ports = {name: int(value) for name, value in values.items() if name.startswith("LINGBI_") and "PORT" in name}
    ports |= {name: int(value) for name, value in environment.items() if name in ports}
    environment = {name: str(port) for name, port in ports.items()} | environment
    command = ("up", "--json", "--model", "demo", "--engine", "cpu", *arguments)
    up = lingbi(*command, state_dir=state_dir, **environment)
    assert up.returncode == 0, up.stderr
    report = json.loads(up.stdout.splitlines()[-1])
    try:
        yield report | {"key": Path(report["api_key_file"]).read_text().split()[0], "ports": ports}
    finally:
        down = lingbi("down", state_dir=state_dir)
        assert down.returncode == 0, down.stderr


@pytest.fixture(scope="session")
def demo_stack(tmp_path_factory):
    """The demo model behind page and gateway; tests must leave it running and answering."""
    state_dir = tmp_path_factory.mktemp("demo stack") / "state"
    with running_stack(state_dir) as report:
        yield report | {"state_dir": state_dir}


@pytest.fixture(scope="session")
def demo_server(tmp_path_factory):
    """The demo model on the CPU engine; tests must leave it running and answering."""
    state_dir = tmp_path_factory.mktemp("demo server") / "state"
    with running_server(state_dir, "--model", "demo", "--engine", "cpu") as report:
        yield report | {"state_dir": state_dir}
