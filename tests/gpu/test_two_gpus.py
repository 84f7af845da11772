"""Two workers of one start behind the gateway, under load: one is killed, one drains, one's card is gone.

On a machine with two GPUs each has a card, of all that were named in any order; elsewhere both are on the CPU.
"""

import contextlib
import itertools
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pynvml
import pytest

from lingbi.launch.supervision import wait_until
from lingbi.model.gpus import find_gpus
from lingbi.placement.record import file_in
from tests.client import CHAT, SCENES, fault, http, metric, question
from tests.conftest import answers, free_ports, running_server
from tests.gateway.conftest import running_gateway
from tests.server.launch.test_entrypoint import serving

TWO = [pytest.mark.gpu, pytest.mark.skipif(len(find_gpus()) < 2, reason="needs two GPUs")]
PEOPLE = {"cpu": 4, "turbomind": 32}
# Times of the first start, and seconds besides. Without a GPU both depend on what else the machine does.
MOST_OF_START, MARGIN_S = 1.5, 5.0
AGAIN_S = 240
WHOLE, CUT_OFF = "whole", "cut off"
SETTINGS = {"LINGBI_CACHE_FRACTION": "0.05"}
PLENTY = {"KEY_RATE": 100000, "ADDRESS_RATE": 100000}
NOWHERE = "7"

pytestmark = pytest.mark.timeout(1200)


@dataclass(frozen=True)
class Pair:
    """Two workers and the gateway before them, each as a server that can be asked; start_s: of both workers together."""

    engine: str
    state_dir: Path
    gateway: dict
    workers: list[dict]
    start_s: float

    def process(self, worker: int) -> psutil.Process:
        supervisor = psutil.Process(int((self.state_dir / "run/supervisord.pid").read_text()))
        found = [child for child in supervisor.children() if child.environ()["LINGBI_WORKER"] == str(worker)]
        return found[0]

    def is_ready(self, worker: int) -> bool:
        return answers(f"{self.workers[worker]['url']}/ready")

    def running(self, worker: int) -> float:
        return metric(self.workers[worker], "lingbi_requests_inside")


@pytest.fixture(scope="module", params=["cpu", pytest.param("turbomind", marks=TWO)])
def pair(request, tmp_path_factory):
    engine, state_dir = request.param, tmp_path_factory.mktemp("pair") / "state"
    first = free_ports(2)
    asked = "demo*2" if engine == "cpu" else "demo"  # a worker for each card is what auto decides
    options = ("--model", asked, "--engine", engine, "--port", first)
    with running_server(state_dir, *options, **SETTINGS) as report:
        addresses = [f"127.0.0.1:{port}" for port in (first, first + 1)]
        with running_gateway(addresses, **PLENTY) as gateway:
            servers = [report | {"url": url} for url in (gateway.url, *(f"http://{one}" for one in addresses))]
            yield Pair(engine, state_dir, servers[0], servers[1:], report["seconds"])


class Crowd:
    """People who each put one streamed question after the other to the gateway. outcomes: how the answers ended."""

    def __init__(self, pair: Pair) -> None:
        self.pair, self.outcomes, self._is_over = pair, [], threading.Event()
        limits = httpx.Limits(max_connections=None)
        self._client = http(pair.gateway, limits=limits)
        self._people = [threading.Thread(target=self._ask, args=(number,)) for number in range(PEOPLE[pair.engine])]

    def __enter__(self) -> "Crowd":
        for person in self._people:
            person.start()
        assert wait_until(lambda: self.pair.running(0) and self.pair.running(1) and self.count(WHOLE) > 2, 120)
        return self

    def __exit__(self, *_) -> None:
        self._is_over.set()
        for person in self._people:
            person.join(120)
        self._client.close()
        assert not any(person.is_alive() for person in self._people)

    def _ask(self, number: int) -> None:
        scene = SCENES[number % len(SCENES)]
        body = question(self.pair.gateway, scene, stream=True, max_tokens=64, ignore_eos=True)
        for question_number in itertools.count():
            if self._is_over.is_set():
                return
            # Each begins a conversation of its own: the others would stay at the worker that took them over.
            self.outcomes.append(self._outcome(body | {"prompt_cache_key": f"{id(self)} {number} {question_number}"}))

    def _outcome(self, body: dict) -> str:
        came = ""
        try:
            with self._client.stream("POST", CHAT, json=body) as response:
                for part in response.iter_text():
                    came += part
        except httpx.HTTPError as error:
            return CUT_OFF if came else repr(error)
        is_whole = response.status_code == 200 and came.endswith("data: [DONE]\n\n")
        return WHOLE if is_whole else f"{response.status_code}: {came[-200:]}"

    def count(self, outcome: str) -> int:
        return self.outcomes.count(outcome)


def expect_both_right(pair: Pair) -> None:
    """Both workers answer every second question rightly, and are at rest then."""
    for server in (*pair.workers, pair.gateway):
        with http(server) as client:
            faults = [fault(scene, client.post(CHAT, json=question(server, scene))) for scene in SCENES[:4]]
        assert faults == [None] * 4
    assert wait_until(lambda: pair.running(0) == pair.running(1) == 0, 30)


def test_a_killed_worker_loses_only_what_had_begun_and_is_back_within_its_start(pair):
    with Crowd(pair) as crowd:
        killed = time.monotonic()
        pair.process(0).kill()
        assert wait_until(lambda: not pair.is_ready(0), 30)
        before = crowd.count(WHOLE)
        assert wait_until(lambda: pair.is_ready(0), AGAIN_S)
        back_s, served = time.monotonic() - killed, crowd.count(WHOLE) - before
        assert wait_until(lambda: pair.running(0), AGAIN_S), "the gateway does not ask it again"
    outcomes = Counter(crowd.outcomes)
    print(f"\nkilled: {dict(outcomes)}; {served} answers meanwhile; back after {back_s:.1f} s, start {pair.start_s} s")
    assert outcomes.keys() <= {WHOLE, CUT_OFF}
    assert outcomes[CUT_OFF] <= PEOPLE[pair.engine] and served
    assert pair.engine == "cpu" or back_s <= MOST_OF_START * pair.start_s + MARGIN_S
    expect_both_right(pair)


def test_a_worker_that_drains_loses_nothing(pair):
    worker = pair.process(0)
    with Crowd(pair) as crowd:
        worker.terminate()
        assert wait_until(lambda: not worker.is_running(), AGAIN_S)
        assert wait_until(lambda: pair.is_ready(0), AGAIN_S)
        assert wait_until(lambda: pair.running(0), AGAIN_S), "the gateway does not ask it again"
    print(f"\ndrained: {dict(Counter(crowd.outcomes))}")
    assert set(crowd.outcomes) == {WHOLE}


def test_a_worker_whose_card_is_gone_says_so_and_the_other_takes_all(pair):
    """Its place is changed to a card that the machine does not have, as one that has failed is no longer listed."""
    placement = file_in(pair.state_dir)
    as_it_was = placement.read_text()
    told = json.loads(as_it_was)
    told["workers"][1]["device"] = NOWHERE

    def failed() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            report = httpx.get(f"{pair.workers[1]['url']}/ready").json()
            return report["phase"] == "failed" and f"cannot reach GPU {NOWHERE}" in report["error"]
        return False

    with Crowd(pair) as crowd:
        placement.write_text(json.dumps(told))
        try:
            pair.process(1).terminate()
            assert wait_until(failed, AGAIN_S), "the worker does not tell that its card is gone"
            enough = crowd.count(WHOLE) + 2 * PEOPLE[pair.engine]
            assert wait_until(lambda: crowd.count(WHOLE) >= enough, AGAIN_S)
        finally:
            placement.write_text(as_it_was)
        assert wait_until(lambda: pair.is_ready(1), AGAIN_S)
    print(f"\nwithout its card: {dict(Counter(crowd.outcomes))}")
    assert set(crowd.outcomes) == {WHOLE}
    expect_both_right(pair)


def users_of(card: int) -> set[int]:
    """The processes that compute on a card."""
    pynvml.nvmlInit()
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(card)
        return {process.pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)}
    finally:
        pynvml.nvmlShutdown()


def uuid_of(card: int) -> str:
    pynvml.nvmlInit()
    try:
        return pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(card))
    finally:
        pynvml.nvmlShutdown()


def expect_on(cards: list[int], supervisor: psutil.Process) -> None:
    """These workers, by their numbers, are on these cards, and nothing else of this start is on any."""
    family = {process.pid: process for process in supervisor.children()}
    for card in (0, 1):
        here = [int(family[pid].environ()["LINGBI_WORKER"]) for pid in users_of(card) & family.keys()]
        assert here == [worker for worker, chosen in enumerate(cards) if chosen == card]


@pytest.mark.parametrize(
    ("visible", "cards"),
    [("1,0", [1, 0]), ("{1},{0}", [1, 0]), ("1", [1]), ("{short},9,0", [1])],
)
@pytest.mark.gpu
@TWO[1]
def test_each_worker_is_on_the_card_that_its_order_says(tmp_path, visible, cards):
    uuids = [uuid_of(0), uuid_of(1)]
    visible = visible.format(*uuids, short=uuids[1][:12])
    options = ("--model", "demo", "--port", free_ports(2))
    with running_server(tmp_path / "state", *options, CUDA_VISIBLE_DEVICES=visible, **SETTINGS) as report:
        assert answers(f"{report['url']}/ready")
        expect_on(cards, psutil.Process(int((tmp_path / "state/run/supervisord.pid").read_text())))


@pytest.mark.gpu
@TWO[1]
def test_cards_that_a_container_is_given_in_any_order_have_a_worker_each(tmp_path):
    """LINGBI_GPU_IDS=1,0 has Docker tell a container this."""
    with serving(tmp_path, LINGBI_MODEL="demo", NVIDIA_VISIBLE_DEVICES="1,0", **SETTINGS) as server:
        assert wait_until(lambda: bool(users_of(0)) and bool(users_of(1)), AGAIN_S)
        expect_on([0, 1], psutil.Process(server.process.pid))
        server.process.terminate()
        assert server.process.wait(90) == 0
