"""A real Prometheus watches a native stack with monitoring/'s own configuration: nothing it asks for is missing.

Two workers run, so that the gateway places conversations. Three things differ from what runs beside containers, and a lab's operator changes the same ones: the lists of targets
name this test's ports, addresses of this machine stand in place of Compose's `nginx-exporter:9113` and `gateway:6007`, and all times are
divided by SCALE, so that an alert of two minutes fires after one second.
"""

import contextlib
import re
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from lingbi.images.messages import data_url, user_message
from lingbi.images.scenes import Scene, Thing, draw
from lingbi.launch.supervision import Supervisor, wait_until
from tests.conftest import answers, free_port, free_ports, running_stack, suspended
from tests.monitoring.expressions import FOLDER, ON_DEMAND, expressions, metrics_of

SCALE = 120
SECONDS = {"s": 1, "m": 60, "h": 3600}
GPU_ONLY = re.compile(r"^DCGM_FI_DEV_[A-Z_]+$")  # NVIDIA's exporter gives these, and only where there is a GPU
IMAGE = data_url(draw(Scene((Thing("red", "circle"),))))


@dataclass(frozen=True)
class Watched:
    """A stack under watch: its folder, its address and key, its model, and Prometheus's address."""

    state_dir: Path
    url: str
    key: str
    model: str
    prometheus: str

    def ask(self, path: str, **parameters) -> dict:
        """What Prometheus's API answers."""
        reply = httpx.get(f"{self.prometheus}/api/v1/{path}", params=parameters)
        assert reply.status_code == 200, reply.text
        return reply.json()["data"]

    def samples(self, expression: str) -> list:
        return self.ask("query", query=expression)["result"]


def scaled(text: str) -> str:
    """Durations like `for: 2m` and `scrape_interval: 15s`, divided by SCALE and at least a second; ranges stay."""

    def shorter(found: re.Match) -> str:
        seconds = int(found[2]) * SECONDS[found[3]] // SCALE
        return f"{found[1]}{max(1, seconds)}s"

    return re.sub(r"^(\s*(?:for|scrape_interval|evaluation_interval): )(\d+)([smh])$", shorter, text, flags=re.M)


def configure(folder, servers: list, exporter: str, gateway: str) -> None:
    """Copy monitoring/prometheus to the folder with targets of this test."""
    shutil.copytree(FOLDER / "prometheus", folder)
    (folder / "targets/servers.yml").write_text(yaml.safe_dump([{"targets": servers}]))
    (folder / "alerts.yml").write_text(scaled((FOLDER / "prometheus/alerts.yml").read_text()))
    text = (FOLDER / "prometheus/prometheus.yml").read_text()
    for name, address in (("nginx-exporter:9113", exporter), ("gateway:6007", gateway)):
        assert text.count(name) == 1
        text = text.replace(name, address)
    (folder / "prometheus.yml").write_text(scaled(text))


@contextlib.contextmanager
def running(log, *command, url: str):
    """A process that answers 200 at the URL."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        assert wait_until(lambda: process.poll() is not None or answers(url), 30)
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def watched(promtool, tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    exporter, prometheus = (f"127.0.0.1:{free_port()}" for _ in range(2))
    with running_stack(folder / "state", LINGBI_WORKERS="2", LINGBI_PORT=str(free_ports(2))) as stack:
        ports = stack["ports"]
        inner = f"127.0.0.1:{ports['LINGBI_GATEWAY_INNER_PORT']}"
        servers = [f"127.0.0.1:{ports['LINGBI_PORT'] + number}" for number in range(2)]
        configure(folder / "prometheus", servers, exporter, inner)
        status = f"http://{inner}/status"
        export = ["prometheus-nginx-exporter", f"-nginx.scrape-uri={status}", f"-web.listen-address={exporter}"]
        watch = [
            "prometheus",
            f"--config.file={folder / 'prometheus/prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={prometheus}",
        ]
        with (
            running(folder / "exporter.log", *export, url=f"http://{exporter}/metrics"),
            running(folder / "prometheus.log", *watch, url=f"http://{prometheus}/-/ready"),
        ):
            yield Watched(folder / "state", stack["url"], stack["key"], stack["model"], f"http://{prometheus}")


def load(stack: Watched, seconds: float) -> set:
    """Ask about an image on four connections for some seconds, now and then with a wrong key; returns the statuses."""
    end = time.monotonic() + seconds
    body = {"model": stack.model, "messages": [user_message("What colour is it?", IMAGE)], "max_tokens": 16}

    def ask(number: int) -> set:
        statuses = set()
        key = stack.key if number else "wrong"
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=stack.url, headers=headers, timeout=60) as client:
            while time.monotonic() < end:
                statuses.add(client.post("/v1/chat/completions", json=body).status_code)
        return statuses

    with ThreadPoolExecutor(4) as pool:
        return set().union(*pool.map(ask, range(4)))


def worker(stack: Watched) -> psutil.Process:
    """The older of the two."""
    one, other = Supervisor(stack.state_dir).workers_left()
    return min(one, other, key=lambda process: process.create_time())


def successor(stack: Watched, before: set) -> psutil.Process:
    """The worker that supervisor starts in the place of one of these."""

    def started() -> list[psutil.Process]:
        return [process for process in Supervisor(stack.state_dir).workers_left() if process not in before]

    assert wait_until(started, 30)
    (found,) = started()
    return found


def firing(stack: Watched, alert: str) -> bool:
    return bool(stack.samples(f'ALERTS{{alertname="{alert}",alertstate="firing"}}'))


def test_all_targets_are_up(watched):
    def health() -> list:
        targets = watched.ask("targets", state="active")["activeTargets"]
        return sorted((target["labels"]["job"], target["health"], target["lastError"]) for target in targets)

    expected = [(job, "up", "") for job in ("gateway", "placement", "server", "server")]
    assert wait_until(lambda: health() == expected, 30), health()


def test_a_killed_worker_fires_its_alert_which_ends_once_the_next_one_answers(watched):
    first = worker(watched)
    assert not firing(watched, "WorkerGone")
    workers = set(Supervisor(watched.state_dir).workers_left())
    first.send_signal(signal.SIGKILL)
    with suspended(successor(watched, workers)):  # it might be there before the alert is due
        assert wait_until(lambda: firing(watched, "WorkerGone"), 30)
    assert wait_until(lambda: not firing(watched, "WorkerGone"), 60)
    assert worker(watched).pid != first.pid


def test_every_metric_of_rules_and_dashboard_has_data_under_load(watched):
    assert load(watched, 6) >= {200, 401}
    asked = {name for text in expressions() for name in metrics_of(text) if not GPU_ONLY.match(name)}
    assert len(asked) > 15
    asked -= ON_DEMAND
    without = {name for name in asked if not wait_until(lambda name=name: watched.samples(name), 10)}
    assert without == set(), without


def test_every_expression_of_the_dashboard_gives_a_number_under_load(watched):
    load(watched, 3)
    known = [text for text in expressions() if not any(map(GPU_ONLY.match, metrics_of(text)))]
    # An alert gives no sample while all is well: it ends with a comparison, or leaves out whatever is as it should be.
    alert = re.compile(r"[<>=]=? [\d.]+\s*$|\bunless\b")
    panels = [text.replace("$__rate_interval", "1m") for text in known if not alert.search(text)]
    assert len(panels) > 10
    without = [text for text in panels if not wait_until(lambda text=text: watched.samples(text), 10)]
    assert without == [], without
