"""The real nginx sends a conversation's turns to one server, and keeps its retries, drains and limits."""

import contextlib
import json
import re
import time

import httpx
import pytest

from lingbi.launch.supervision import wait_until
from lingbi_gateway.router.affinity import FEW
from tests.client import CHAT
from tests.conftest import free_port, suspended
from tests.gateway.conftest import running_gateway
from tests.gateway.test_model_routing import router_of
from tests.gateway.test_routing import address

MIB = 1 << 20
client = httpx.Client(timeout=30)


def user(text: str) -> dict:
    return {"role": "user", "content": text}


@pytest.fixture
def fleet(upstreams, tmp_path):
    """A gateway before four servers, whose list something else writes."""
    servers, folder = upstreams(4), tmp_path / "servers"
    folder.mkdir()
    for part in (tmp_path, *tmp_path.parents):
        part.chmod(part.stat().st_mode | 0o001)
    listed(folder, servers)
    with running_gateway([], SERVERS_DIR=folder) as gateway:
        gateway.servers, gateway.list = servers, folder
        assert wait_until(lambda: router_of(gateway), 10)
        yield gateway


def listed(folder, servers: list, down=None) -> None:
    lines = [f"server {server.address}{' down' if server is down else ''};\n" for server in servers]
    (folder / "servers.conf").write_text("".join(lines))


def say(gateway, name: str, turns: int = 1, **options) -> str:
    """The server that answers the last of so many turns of a conversation."""
    messages = [
        {"role": "user" if at % 2 == 0 else "assistant", "content": f"{name} {at}"} for at in range(2 * turns - 1)
    ]
    answer = client.post(gateway.url + CHAT, json={"model": "any", "messages": messages}, **options)
    assert answer.status_code == 200, answer.text
    return answer.json()["name"]


def homes(gateway, count: int = 40) -> dict:
    return {number: say(gateway, f"home {number}", turns=2) for number in range(count)}


def test_a_conversation_keeps_its_server_whoever_asks_and_whatever_its_key_is(fleet):
    for name in ("a", "b", "c", "d"):
        found = {say(fleet, name, turns, headers={"Authorization": f"Bearer {turns % 2}"}) for turns in range(1, 6)}
        assert len(found) == 1
    assert len(set(homes(fleet).values())) == 4


def test_questions_about_one_picture_go_to_one_server_in_memory_and_in_a_file(fleet):
    def ask(size: int, text: str, last: str = "A") -> str:
        part = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * (size - 1) + last}}
        body = {"messages": [{"content": [part, {"type": "text", "text": text}], "role": "user"}], "model": "any"}
        return client.post(fleet.url + CHAT, json=body).json()["name"]

    for size, times in ((1000, 5), (80_000, 5), (20 * MIB, 2)):
        assert len({ask(size, f"what is {number}? " + "x" * 9000 * number) for number in range(times)}) == 1
    assert len({ask(80_000, "what?", last) for last in "ABCDEFGHIJ"}) > 1  # alike but for the end


def test_a_full_server_is_passed_over_until_its_answers_end(fleet):
    home = say(fleet, "one", 2)
    for server in fleet.servers:
        server.behaviour, server.seen = "stream", []
    body = {"model": "any", "messages": [user("one 0"), {"role": "assistant", "content": "one 1"}]}
    with contextlib.ExitStack() as running:
        for _ in range(FEW + 3):
            answer = running.enter_context(client.stream("POST", fleet.url + CHAT, json=body))
            assert answer.status_code == 200
        asked = {server.name: len(server.seen) for server in fleet.servers}
        assert asked[home] == FEW and sorted(asked.values()) == [0, 0, 3, FEW]
    for server in fleet.servers:
        server.behaviour = "answer"
    assert wait_until(lambda: say(fleet, "one", 2) != home, 5)  # it stays where its last turn went
    with running_gateway([], SERVERS_DIR=fleet.list) as second:
        assert wait_until(lambda: router_of(second), 10)
        assert say(second, "one", 2) == home


def test_only_the_share_of_a_server_moves_when_it_drains_dies_or_comes_back(fleet):
    before = homes(fleet)
    gone = fleet.servers[0]
    listed(fleet.list, fleet.servers, down=gone)
    assert fleet.command("reload").returncode == 0
    assert wait_until(lambda: gone.name not in homes(fleet).values(), 10)
    drained = homes(fleet)
    assert all(drained[number] == before[number] for number in before if before[number] != gone.name)
    listed(fleet.list, fleet.servers)
    assert fleet.command("reload").returncode == 0
    time.sleep(1)  # until the router has read it
    gone.stop()
    died = homes(fleet)
    assert all(died[number] == before[number] for number in before if before[number] != gone.name)
    assert gone.name not in died.values()


def test_a_server_that_refuses_is_left_out_until_it_answers_again(fleet):
    name = say(fleet, "one", 2)
    home = next(server for server in fleet.servers if server.name == name)
    home.behaviour = "refuse"
    heirs = {say(fleet, "one", 2) for _ in range(6)}
    assert home.name not in heirs and len(home.seen) <= 3
    tried = [line for line in fleet.requests(CHAT, 7) if ", " in line["server"]]
    assert tried and all(line["server_status"] == "503, 200" for line in tried)


def test_without_the_router_any_server_answers(fleet):
    with suspended(router_of(fleet).parent(), router_of(fleet)):
        start = time.monotonic()
        assert say(fleet, "one")
        assert time.monotonic() - start < 15


def test_two_gateways_with_one_list_choose_alike(fleet):
    with running_gateway([], SERVERS_DIR=fleet.list) as second:
        assert wait_until(lambda: router_of(second), 10)
        assert homes(fleet) == homes(second)


def counted(url: str) -> dict:
    """{result: requests} as Prometheus reads them."""
    answer = client.get(f"{url}/metrics/gateway")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        result: int(count)
        for result, count in re.findall(r'placed_requests_total\{result="(\w+)"\} (\d+)', answer.text)
    }


def test_prometheus_is_told_how_many_found_their_server(fleet):
    for turns in (1, 2, 3):
        say(fleet, "one", turns)
    assert counted(fleet.url) == counted(fleet.inner_url) == {"kept": 2, "spilled": 0, "moved": 0, "new": 1}


def test_off_and_a_single_server_are_as_ever(upstreams):
    servers = [server.address for server in upstreams(2)]
    for listing, affinity in ((servers, "off"), (servers[:1], "on")):
        with running_gateway(listing, AFFINITY=affinity) as gateway:
            assert json.loads((gateway.folder / "routes.json").read_text()) is None
            assert router_of(gateway) is None and say(gateway, "one")
            assert client.get(f"{gateway.url}/metrics/gateway").text == ""


def test_real_servers_find_the_sessions_of_follow_ups(workers):
    """Each of the three keeps sessions; without affinity, two of three follow-ups would find none."""
    headers = {"Authorization": f"Bearer {workers[0]['key']}"}
    with running_gateway([address(worker) for worker in workers]) as gateway:
        reused = []
        for number in range(6):
            messages = [user(f"{number} " + "tell me about shapes and colours " * 40)]
            for _ in range(2):
                body = {"model": workers[0]["model"], "messages": messages, "max_tokens": 4, "temperature": 0}
                answer = client.post(gateway.url + CHAT, json=body, headers=headers, timeout=60).json()
                messages = [*messages, answer["choices"][0]["message"], user("and again?")]
            details = answer["usage"]["prompt_tokens_details"]
            reused.append(details["cached_tokens"] / answer["usage"]["prompt_tokens"])
        assert min(reused) > 0.8, reused


def test_a_dead_server_costs_each_of_nginxs_processes_one_try(workers):
    dead = f"127.0.0.1:{free_port()}"
    with running_gateway([dead, address(workers[0])]) as gateway:
        headers = {"Authorization": f"Bearer {workers[0]['key']}"}
        for number in range(12):
            body = {"model": workers[0]["model"], "messages": [user(f"hello {number}")], "max_tokens": 2}
            assert client.post(gateway.url + CHAT, json=body, headers=headers, timeout=60).status_code == 200
        assert len([line for line in gateway.requests(CHAT, 12) if dead in line["server"]]) <= 2
