"""The gateway follows its list of servers without being told, and says at its start how to call it."""

import httpx
import psutil
import pytest

from lingbi.launch.supervision import wait_until
from lingbi_gateway.greeting import greeting
from lingbi_gateway.settings import load_settings
from tests.gateway.conftest import running_gateway


def who(gateway) -> set:
    return {httpx.get(f"{gateway.url}/v1/x").json()["name"] for _ in range(6)}


def test_a_changed_list_is_applied_and_a_broken_one_is_told_and_changes_nothing(upstreams, tmp_path):
    first, second = upstreams(2)
    servers = tmp_path / "workers.conf"
    servers.write_text(f"server {first.address};\n")
    tmp_path.chmod(0o755)
    with running_gateway([], SERVERS_DIR=tmp_path, WATCH="on") as gateway:
        assert who(gateway) == {"server-0"}
        servers.write_text(f"server {first.address};\nserver {second.address};\n")
        assert wait_until(lambda: who(gateway) == {"server-0", "server-1"}, 20), gateway.log()
        servers.write_text("nonsense\n")
        assert wait_until(lambda: "error: nginx refuses the configuration" in gateway.log(), 20), gateway.log()
        assert who(gateway) == {"server-0", "server-1"}
        children = psutil.Process(gateway.process.pid).children()
        [watcher] = [item for item in children if "lingbi_gateway" in item.cmdline()]
    assert wait_until(lambda: not watcher.is_running(), 10)


@pytest.mark.parametrize(
    ("published", "tls", "said"),
    [
        ("127.0.0.1:6006", "off", "lingbi answers at http://127.0.0.1:6006 (page) and http://127.0.0.1:6006/v1 (API)"),
        ("0.0.0.0:6006", "generated", "lingbi answers at https://127.0.0.1:6006 (page)"),
        ("[::]:80", "off", "lingbi answers at http://[::1]:80 (page)"),
    ],
)
def test_it_says_where_it_is_published(published, tls, said):
    given = {"LINGBI_GATEWAY_PUBLISHED": published, "LINGBI_GATEWAY_TLS": tls}
    lines = greeting(load_settings(given)).splitlines()
    assert lines[0].startswith(said) and lines[0].endswith("the API key: docker compose exec -T server lingbi key show")
    url = lines[0].removeprefix("lingbi answers at ").partition(" ")[0]
    assert lines[1].startswith(f"{url}/batches shows") and f"{url}/admin" in lines[1]
    assert lines[2].startswith("try it: curl -s" + ("k " if tls != "off" else " "))


def test_where_nobody_said_so_it_says_nothing():
    assert greeting(load_settings({})) == ""
