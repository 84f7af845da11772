"""What a reload follows: the list of servers, with limits for as many as it holds."""

import httpx
import pytest

from lingbi.launch.supervision import wait_until
from tests.client import CHAT
from tests.gateway.conftest import running_gateway


@pytest.fixture
def gateway(tmp_path, upstreams):
    """One whose list of servers something else writes; `servers` are three of them."""
    servers, folder = [server.address for server in upstreams(3)], tmp_path / "servers"
    folder.mkdir()
    for part in (tmp_path, *tmp_path.parents):
        part.chmod(part.stat().st_mode | 0o001)
    listed(folder, servers[:1])
    with running_gateway([], SERVERS_DIR=folder, KEY_RATE=7, ADDRESS_CONNECTIONS=5) as found:
        found.servers, found.list = servers, folder
        yield found


def listed(folder, servers: list) -> None:
    (folder / "servers.conf").write_text("".join(f"server {server};\n" for server in servers))


def test_limits_follow_the_servers_of_a_reload(gateway):
    rendered = gateway.folder / "nginx.conf"
    assert "rate=7r/s;" in rendered.read_text()
    listed(gateway.list, gateway.servers)
    done = gateway.command("reload")
    assert done.returncode == 0, done.stderr
    text = rendered.read_text()
    assert "rate=21r/s;" in text and "burst=84 nodelay" in text and "address_connections 15;" in text
    assert "may send 21 a second" in (gateway.folder / "errors/429.json").read_text()

    def passed() -> int:
        # A connection for each request: nginx closes idle ones as it reloads, maybe while a client begins to use one again.
        with httpx.Client(headers={"Authorization": "Bearer one", "Connection": "close"}) as client:
            return [client.post(gateway.url + CHAT, content=b"{}").status_code for _ in range(60)].count(200)

    assert wait_until(lambda: passed() == 60, 30)  # 28 at once before: nginx takes the new limits, not only the file
    listed(gateway.list, gateway.servers[:1])
    assert gateway.command("reload").returncode == 0 and "rate=7r/s;" in rendered.read_text()


def test_a_reload_from_another_environment_keeps_the_settings_of_the_start(gateway):
    for name in ("KEY_RATE", "ADDRESS_CONNECTIONS", "SERVERS_DIR", "PORT"):
        gateway.environment.pop(f"LINGBI_GATEWAY_{name}")
    listed(gateway.list, gateway.servers[:2])
    assert gateway.command("reload").returncode == 0
    text = (gateway.folder / "nginx.conf").read_text()
    assert "rate=14r/s;" in text and str(gateway.list) in text
    assert f"127.0.0.1:{gateway.port} " in (gateway.folder / "listen.conf").read_text()


def test_a_list_that_nginx_refuses_changes_nothing(gateway):
    before = {file: file.read_text() for file in gateway.folder.rglob("*.*") if file.suffix in (".conf", ".json")}
    (gateway.list / "servers.conf").write_text("server a.lab.example:1;\nserver no good;\n")
    done = gateway.command("reload")
    assert done.returncode == 2 and "nginx refuses" in done.stderr
    assert {file: file.read_text() for file in before} == before
    assert httpx.post(gateway.url + CHAT, content=b"{}").status_code == 200


def test_a_gateway_of_an_earlier_version_is_reloaded_as_it_is(gateway):
    (gateway.folder / "started-with.json").unlink()
    listed(gateway.list, gateway.servers)
    assert gateway.command("reload").returncode == 0
    assert "rate=7r/s;" in (gateway.folder / "nginx.conf").read_text()
