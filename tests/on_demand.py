"""Models on demand that share one place, as scripts/up starts them."""

import contextlib
import json
import shutil
from pathlib import Path

import httpx
import psutil

from tests.conftest import DEMO, free_ports, lingbi

STARTED_S = 300


def renamed_demo(folder: Path) -> Path:
    """A model folder with the demo's weights that is served under its own name."""
    shutil.copytree(DEMO, folder, ignore=shutil.ignore_patterns("__pycache__"))
    config = json.loads((folder / "config.json").read_text())
    del config["lingbi_demo"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


class Host:
    """What scripts/up starts: an arbiter, and a worker for each model folder. servers: [{"url", "key", "model"}] in the order
    of the folders."""

    def __init__(self, state_dir: Path, models: list[Path], **settings: str) -> None:
        self.state_dir, self.models = state_dir, models
        self.first = free_ports(len(models))
        self.settings = {"LINGBI_ENGINE": "cpu", "LINGBI_ON_DEMAND": "true", "LINGBI_QUEUE_LIMIT": "300"} | settings
        self.urls = [f"http://127.0.0.1:{self.first + number}" for number in range(len(models))]

    def start(self) -> None:
        named = [word for model in self.models for word in ("--model", model)]
        options = ("--json", "--server-only", "--port", self.first, *named)
        up = lingbi("up", *options, state_dir=self.state_dir, timeout_s=STARTED_S, **self.settings)
        assert up.returncode == 0, up.stderr
        key = (self.state_dir / "api-key").read_text().split()[0]
        names = [httpx.get(f"{url}/ready").json()["model"] for url in self.urls]
        self.servers = [{"url": url, "key": key, "model": name} for url, name in zip(self.urls, names, strict=True)]
        self.processes = [self._worker(number) for number in range(len(self.models))]

    def _worker(self, number: int) -> psutil.Process:
        """The first process of a worker."""
        found = [
            process for process in self._family("lingbi.worker") if process.environ()["LINGBI_WORKER"] == str(number)
        ]
        return found[0]

    def arbiter(self) -> psutil.Process | None:
        return next(iter(self._family("lingbi.demand")), None)

    def _family(self, module: str) -> list[psutil.Process]:
        """Supervisor's own processes that run a module."""
        children = psutil.Process(int((self.state_dir / "run/supervisord.pid").read_text())).children()
        return [process for process in children if module in process.cmdline()]

    def log(self, name: str) -> str:
        return (self.state_dir / f"logs/{name}.log").read_text()

    def state(self, number: int) -> str:
        """What /ready of a worker says of its model."""
        return str(httpx.get(f"{self.urls[number]}/ready", timeout=30).json()["state"])

    def lives(self, number: int) -> list[psutil.Process]:
        """The processes that a worker's first process has made and that are still there."""
        return list(self.processes[number].children())

    def wakes(self) -> int:
        """How often any model was loaded."""
        files = self.state_dir.glob("run/worker-*.wakes")
        return sum(json.loads(file.read_text())["wakes"] for file in files)

    def stop(self) -> None:
        down = lingbi("down", state_dir=self.state_dir)
        assert down.returncode == 0, down.stderr


@contextlib.contextmanager
def running_on_demand(state_dir: Path, models: list[Path], **settings: str):
    host = Host(state_dir, models, **settings)
    try:
        host.start()
        yield host
    finally:
        host.stop()
