"""Models that share one place, loaded in turn: real processes on the CPU engine, answers judged by content."""

import asyncio
import json
import os
import re
import signal

import httpx
import pytest

from lingbi.launch.supervision import wait_until
from tests.client import CHAT, SCENES, fault, http, metric, question
from tests.conftest import DEMO
from tests.load.swaps import ask_alternating
from tests.on_demand import renamed_demo, running_on_demand

CLIENTS, QUESTIONS = 60, 2


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """The demo model and a copy of it under another name, of which one is loaded at a time."""
    folder = tmp_path_factory.mktemp("on demand")
    models = [DEMO, renamed_demo(folder / "shapes")]
    with running_on_demand(folder / "state", models, LINGBI_STAY_S="2") as found:
        yield found


def ask(server: dict, number: int = 0, **headers: str) -> httpx.Response:
    with http(server) as client:
        return client.post(CHAT, json=question(server, SCENES[number]), headers=headers)


def is_asleep(host, number: int) -> bool:
    return host.state(number) == "asleep"


def test_a_sleeping_model_is_healthy_and_a_question_wakes_it(host):
    server = host.servers[0]
    if not is_asleep(host, 0):
        assert fault(SCENES[0], ask(host.servers[1])) is None and wait_until(lambda: is_asleep(host, 0), 10)
    ready = httpx.get(f"{server['url']}/ready")
    assert ready.status_code == 200 and (ready.json()["status"], ready.json()["phase"]) == ("ready", "asleep")
    assert ready.json()["cpu"]["session_len"] > 0
    with http(server) as client:
        assert client.get("/v1/models").json()["data"][0]["id"] == server["model"]
        assert client.get("/v1/models", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert fault(SCENES[3], ask(server, 3)) is None
    assert host.state(0) == "ready" and host.state(1) in ("asleep", "draining")


def test_a_stream_tells_how_far_loading_is(host):
    asleep = next(number for number in (0, 1) if is_asleep(host, number))
    server = host.servers[asleep]
    with http(server) as client, client.stream("POST", CHAT, json=question(server, SCENES[5], stream=True)) as response:
        arriving = response.iter_lines()
        lines = [next(arriving)]
        assert metric(server, "lingbi_requests_inside") >= 1  # a rollout waits until it is answered
        lines += [line for line in arriving if line]
    comments = [line for line in lines if line.startswith(":")]
    assert comments[0] == ": waiting for the model's turn"
    told = re.compile(r": (waiting for the model's turn|loading the model, \d+%|prompt \d+/\d+)")  # once a second
    assert all(map(told.fullmatch, comments))
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert fault(SCENES[5], httpx.Response(200, json={"choices": [{"message": {"content": text}}]})) is None
    assert lines[-1] == "data: [DONE]"


def test_who_does_not_want_to_wait_is_told_when_to_come_again_and_the_model_wakes_meanwhile(host):
    asleep = next(number for number in (0, 1) if is_asleep(host, number))
    server = host.servers[asleep]
    refused = ask(server, Prefer="wait=0")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
    assert 1 <= int(refused.headers["retry-after"]) <= 60 and "is being loaded" in refused.json()["error"]["message"]
    assert wait_until(lambda: host.state(asleep) == "ready", 60)
    assert fault(SCENES[0], ask(server, Prefer="wait=0")) is None


def test_a_question_to_a_model_that_is_being_put_away_waits_and_is_answered(host):
    first, second = host.servers
    with http(first) as client:
        assert fault(SCENES[0], ask(first)) is None
        before = host.log("arbiter").count("put away")
        endless = question(first, SCENES[0], max_tokens=2000, ignore_eos=True, stream=True)
        with client.stream("POST", CHAT, json=endless) as response:
            lines = response.iter_lines()
            next(lines)

            async def both() -> tuple[httpx.Response, httpx.Response]:
                other = asyncio.create_task(asyncio.to_thread(ask, second, 1))
                assert await asyncio.to_thread(wait_until, lambda: host.log("arbiter").count("put away") > before, 30)
                return await asyncio.gather(asyncio.to_thread(ask, first, 2), other)

            async def read() -> list[str]:
                return await asyncio.to_thread(lambda: [line for line in lines if line])

            async def all_of_it():
                return await asyncio.gather(both(), read())

            (late, other), rest = asyncio.run(all_of_it())
    assert rest[-1] == "data: [DONE]"  # what ran was finished first
    assert fault(SCENES[1], other) is None and fault(SCENES[2], late) is None


def test_clients_that_alternate_between_models_are_all_answered_in_few_loads(host):
    before = host.wakes()
    outcome = asyncio.run(ask_alternating(host.servers, CLIENTS, QUESTIONS))
    loads = host.wakes() - before
    print(f"{outcome.asked} questions of {CLIENTS} clients: {loads} loads, {outcome.seconds:.1f} s")
    assert outcome.faults == [] and outcome.asked == CLIENTS * QUESTIONS
    assert loads <= 2 * QUESTIONS + 1


def test_weights_that_are_broken_leave_the_other_model_serving(host):
    broken = host.models[1] / "pytorch_model.bin"
    assert fault(SCENES[0], ask(host.servers[0])) is None and host.state(0) == "ready"
    assert wait_until(lambda: is_asleep(host, 1), 20)
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    try:
        life = host.lives(0)
        refused = ask(host.servers[1])
        assert refused.status_code == 503 and "cut short" in refused.json()["error"]["message"]
        ready = httpx.get(f"{host.urls[1]}/ready")
        assert ready.status_code == 503 and "cut short" in ready.json()["error"]
        assert host.state(0) == "ready" and host.lives(0) == life
        assert fault(SCENES[1], ask(host.servers[0], 1)) is None
    finally:
        broken.write_bytes(whole)
    assert wait_until(lambda: ask(host.servers[1]).status_code == 200, 60)


def test_a_fault_that_only_loading_shows_brings_the_other_model_back(host):
    code = host.models[1] / "modeling_internlm_xcomposer2.py"
    assert fault(SCENES[0], ask(host.servers[0])) is None and host.state(0) == "ready"
    assert wait_until(lambda: is_asleep(host, 1), 20)
    whole = code.read_text()
    code.write_text("raise RuntimeError('a fault of the folder')\n" + whole)
    try:
        refused = ask(host.servers[1])
        assert refused.status_code == 503 and "a fault of the folder" in refused.json()["error"]["message"]
        assert wait_until(lambda: host.state(0) == "ready", 60)
    finally:
        code.write_text(whole)
    assert wait_until(lambda: ask(host.servers[1]).status_code == 200, 60)


def test_a_process_that_is_killed_in_the_middle_of_a_swap_is_replaced(host):
    loaded = next(number for number in (0, 1) if host.state(number) == "ready")
    other = 1 - loaded
    assert wait_until(lambda: is_asleep(host, other) and len(host.lives(other)) == 1, 20)
    (victim,) = host.lives(other)

    def is_loading() -> bool:
        return httpx.get(f"{host.urls[other]}/ready", timeout=30).json()["phase"].startswith("loading")

    async def kill_while_waking() -> httpx.Response:
        asked = asyncio.create_task(asyncio.to_thread(ask_and_see, host.servers[other]))
        assert await asyncio.to_thread(wait_until, is_loading, 30, 0.02)
        os.kill(victim.pid, signal.SIGKILL)
        return await asked

    assert asyncio.run(kill_while_waking()) is None  # its client's connection broke
    assert fault(SCENES[2], ask(host.servers[loaded], 2)) is None
    assert fault(SCENES[4], ask(host.servers[other], 4)) is None
    assert 'reason="crashed"' in httpx.get(f"{host.urls[other]}/metrics").text


def ask_and_see(server: dict) -> httpx.Response | None:
    try:
        return ask(server)
    except httpx.TransportError:
        return None


def test_an_arbiter_that_is_killed_is_followed_by_one_that_goes_on(host):
    loaded = next(number for number in (0, 1) if host.state(number) == "ready")
    killed = host.arbiter()
    killed.kill()
    assert fault(SCENES[0], ask(host.servers[loaded])) is None
    assert fault(SCENES[1], ask(host.servers[1 - loaded], 1)) is None
    assert host.arbiter() not in (None, killed)
