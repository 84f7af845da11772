"""Batches that run while a lab is rolled: they are asked about at every gateway all the time, and judged by what their
pictures show."""

import functools
import itertools
import re
import threading
import time

import httpx
import openai

from lingbi.images.scenes import Scene, find_fault
from lingbi.launch.supervision import wait_until
from tests.ansible.lab.lab import Lab
from tests.ansible.lab.load import question
from tests.client import CHAT, SCENES
from tests.load.batch_kills import GOING, faults_of
from tests.system.test_batches import submit, text_of, told

ANSWERED = re.compile(r'^lingbi_batch_lines_total\{[^}]*outcome="answered"[^}]*\} (\S+)$', re.M)
PORTS = (23333, 23334)  # of a host's servers, one for each of its models
LOOK_S, END_S, PATIENCE_S = 1.0, 240.0, 60.0
TOKENS = 200  # of each answer, which goes on where the model would end it: so lines take long and are few
LINES, FEW = 60, 30  # of each batch, and with how many left the next one comes


class Batches:
    """Lines about scenes, for models in turn; use it as a context: until `end`, batches come one after the other, so that
    some lines are always left, and they are asked about all the time.

    The servers that run when it begins have answered no line yet, so that what they have answered is of these.

    looks: (seconds since the first was submitted, lines that are left) of each; faults: what was wrong with one. No look is
    repeated.
    """

    def __init__(self, lab: Lab, gateways: tuple, models: tuple) -> None:
        self.lab, self.looks, self.faults = lab, [], []
        self.clients = [self._client(f"{lab.url(name)}/v1") for name in gateways]
        self.lines = zip(itertools.count(), itertools.cycle(SCENES), itertools.cycle(models), strict=False)
        self.asked = {}  # {a batch's id: {a line's id: (its scene, its model)}}
        self.going = set()
        self._submitting, self._are_enough = threading.Lock(), False

    def _client(self, url: str) -> openai.OpenAI:
        http = httpx.Client(trust_env=False, headers={"Connection": "close"})
        return openai.OpenAI(api_key=self.lab.key, base_url=url, max_retries=0, timeout=PATIENCE_S, http_client=http)

    def __enter__(self) -> "Batches":
        assert not any(self.answered().values()), self.answered()
        self.begun, self._end = time.monotonic(), threading.Event()
        self._submit(self.clients[0])
        self._look(self.clients[-1])
        self._thread = threading.Thread(target=self._look_on)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._end.set()
        self._thread.join()

    def _submit(self, client: openai.OpenAI) -> None:
        asked = {f"line-{number}": (scene, model) for number, scene, model in itertools.islice(self.lines, LINES)}
        batch = submit(client, [line(name, *each) for name, each in asked.items()])
        self.asked[batch.id] = asked
        self.going.add(batch.id)

    def _look_on(self) -> None:
        for client in itertools.cycle(self.clients):
            if self._end.wait(LOOK_S):
                return
            try:
                self._look(client)
                with self._submitting:
                    if self.left < FEW and not self._are_enough:
                        self._submit(client)
            except openai.OpenAIError as error:
                self.faults.append(f"{time.strftime('%H:%M:%S')} {client.base_url}: {error!r}")

    def _look(self, client: openai.OpenAI) -> None:
        left = 0
        for each in sorted(self.going):
            batch = client.batches.retrieve(each)
            left += len(self.asked[each]) - batch.request_counts.completed - batch.request_counts.failed
            if batch.status not in GOING:
                self.going.remove(each)
        self.looks.append((round(time.monotonic() - self.begun), left))

    @property
    def left(self) -> int:
        """Lines that had no result at the last look."""
        return self.looks[-1][1]

    def answered(self) -> dict:
        """{host: lines that its servers have answered since they started}."""
        return {name: sum(self._answered_at(name)) for name in self.lab.servers}

    def _answered_at(self, host: str):
        for port in PORTS:
            try:
                text = httpx.get(f"http://{self.lab.hosts[host].address}:{port}/metrics", trust_env=False).text
            except httpx.ConnectError:
                continue  # it has one model
            yield from map(float, ANSWERED.findall(text))

    def expect_all_at_it(self) -> None:
        """Every host has answered lines, by what runs there now, and some are left."""
        assert wait_until(lambda: all(self.answered().values()), END_S), (self.answered(), self.looks[-3:])
        assert self.left > 0, self.looks[-3:]

    def end(self) -> None:
        """No more come, those that did end, and each line has one result, which is right; no look at them failed."""
        with self._submitting:
            self._are_enough = True
        assert wait_until(lambda: not self.going, END_S), self.looks[-3:]
        for each, asked in self.asked.items():
            self._expect_whole(each, asked)
        assert not self.faults, self.faults[:20]

    def _expect_whole(self, batch_id: str, asked: dict) -> None:
        client = self.clients[-1]
        batch = client.batches.retrieve(batch_id)
        results, errors = (told(client, file) if file else [] for file in (batch.output_file_id, batch.error_file_id))
        faults = faults_of(list(asked), results, errors, functools.partial(self._is_right, asked))
        assert not faults, faults[:20]
        counts = batch.request_counts
        assert (batch.status, counts.total, counts.completed) == ("completed", len(asked), len(asked)), batch

    @staticmethod
    def _is_right(asked: dict, result: dict) -> bool:
        scene, model = asked[result["custom_id"]]
        said = text_of(result).partition("。")[0]  # then it goes on beyond its end
        return result["response"]["body"]["model"] == model and find_fault("things", scene, said) is None


def line(custom_id: str, scene: Scene, model: str) -> dict:
    body = {"model": model, "messages": [question(scene)], "temperature": 0, "max_tokens": TOKENS, "ignore_eos": True}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}
