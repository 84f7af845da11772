"""scripts/up with page and gateway, and what remains of them."""

import json
import re
import subprocess
from types import SimpleNamespace

import httpx
import psutil

from lingbi.accounts.key_file import read_keys
from lingbi.client.addresses import record_file
from lingbi.launch.edge import Front
from lingbi.launch.starts import curl_line
from lingbi.launch.supervision import Supervisor, wait_until
from lingbi.settings import load_settings
from tests.conftest import lingbi, running_stack
from tests.system.test_smoke import AFTER_GATEWAY, BEFORE_GATEWAY


def test_smoke_passes_through_tls_too_and_sees_a_page_that_cannot_ask(tmp_path):
    state_dir = tmp_path / "state"
    with running_stack(state_dir, LINGBI_GATEWAY_TLS="generated") as stack:
        assert stack["url"].startswith("https://")
        assert set(stack) - {"key", "ports"} == {"url", "api_key_file", "model", "engine", "seconds"}
        said = {file.name: file.read_text() for file in (state_dir / "logs").glob("*.log")}
        assert said.keys() >= {"supervisord.log", "worker-0.log", "gateway.log", "ui.log"}
        assert not re.search(r"CRIT|\[(crit|alert|emerg)\]", "".join(said.values())), said
        record = json.loads(record_file(state_dir).read_text())
        line = curl_line(stack["url"], stack["key"], stack["model"], record["ca_file"])
        assert "choices" in subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout
        done = lingbi("smoke", "--json", state_dir=state_dir)
        assert done.returncode == 0, done.stderr
        names = [check["name"] for check in json.loads(done.stdout)["checks"]]
        assert names == [*BEFORE_GATEWAY, "gateway", "page", *AFTER_GATEWAY]
        assert {key.name for key in read_keys(state_dir / "keys")} == {"default", "ui"}
        (state_dir / "ui-key").write_text("wrong\n")
        health = f"{stack['url']}/page-health"  # its answer is kept for some seconds
        assert wait_until(lambda: httpx.get(health, verify=record["ca_file"]).status_code == 503, 15)
        done = lingbi("smoke", state_dir=state_dir)
        assert done.returncode == 1 and "FAIL  page" in done.stderr


def test_down_also_ends_page_and_gateway_whose_supervisor_was_killed(tmp_path):
    state_dir = tmp_path / "state"
    with running_stack(state_dir) as stack:
        supervisor = Supervisor(state_dir)
        supervisor.process().kill()
        assert wait_until(lambda: supervisor.process() is None, 10)
        assert len(supervisor.front_left()) == 2 and httpx.get(stack["url"]).status_code == 200
    assert supervisor.front_left() == [] and supervisor.workers_left() == []
    ports = {item.laddr.port for item in psutil.net_connections() if item.status == psutil.CONN_LISTEN}
    assert not ports & set(stack["ports"].values())


def test_the_gateways_url_has_brackets_around_ipv6():
    for host, written in (("::", "[::1]"), ("::1", "[::1]"), ("0.0.0.0", "127.0.0.1"), ("10.0.0.1", "10.0.0.1")):
        gateway = SimpleNamespace(tls="off", host=host, port=6006)
        assert Front({}, gateway, {}).url == f"http://{written}:6006"


def test_a_bad_setting_of_page_or_gateway_stops_the_start(tmp_path):
    for name, close in (("LINGBI_UI_PROT", "LINGBI_UI_PORT"), ("LINGBI_GATEWAY_PROT", "LINGBI_GATEWAY_PORT")):
        done = lingbi("up", "--model", "demo", "--engine", "cpu", state_dir=tmp_path / "state", **{name: "1"})
        assert done.returncode == 2 and name in done.stderr and close in done.stderr
    done = lingbi("up", "--model", "demo", state_dir=tmp_path / "state", LINGBI_GATEWAY_NGINX="/nowhere/nginx")
    assert done.returncode == 2 and "--server-only" in done.stderr


def test_the_server_leaves_the_others_settings_to_them(monkeypatch):
    for name in ("LINGBI_UI_PORT", "LINGBI_GATEWAY_PORT"):
        monkeypatch.setenv(name, "1")
    load_settings()
