"""A batch that runs while a lab is rolled: it is asked about at every gateway all the time, and judged by what its pictures show."""

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
TOKENS = 200  # of each answer, which goes on where the model would end it: so a batch takes long and is small


class Batch:
    """Lines about scenes, for models in turn; use it as a context: it is asked about until the end of the block.

    The servers that run when it begins have answered no line yet, so that what they have answered is of this one.

    looks: (seconds since it was submitted, status, lines done) of each; faults: what was wrong with one. No look is repeated.
    """

    def __init__(self, lab: Lab, gateways: tuple, count: int, models: tuple) -> None:
        self.lab, self.looks, self.faults = lab, [], []
        self.clients = [self._client(f"{lab.url(name)}/v1") for name in gateways]
        turns = zip(range(count), itertools.cycle(SCENES), itertools.cycle(models), strict=False)
        self.asked = {f"line-{number}": (scene, model) for number, scene, model in turns}

    def _client(self, url: str) -> openai.OpenAI:
        http = httpx.Client(trust_env=False, headers={"Connection": "close"})
        return openai.OpenAI(api_key=self.lab.key, base_url=url, max_retries=0, timeout=PATIENCE_S, http_client=http)

    def __enter__(self) -> "Batch":
        assert not any(self.answered().values()), self.answered()
        self.id = submit(self.clients[0], [line(name, *asked) for name, asked in self.asked.items()]).id
        self.begun, self._end = time.monotonic(), threading.Event()
        self._look(self.clients[-1])
        self._thread = threading.Thread(target=self._look_on)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._end.set()
        self._thread.join()

    def _look_on(self) -> None:
        for client in itertools.cycle(self.clients):
            if self._end.wait(LOOK_S):
                return
            try:
                self._look(client)
            except openai.OpenAIError as error:
                self.faults.append(f"{time.strftime('%H:%M:%S')} {client.base_url}: {error!r}")

    def _look(self, client: openai.OpenAI) -> None:
        batch, seconds = client.batches.retrieve(self.id), round(time.monotonic() - self.begun)
        self.looks.append((seconds, batch.status, batch.request_counts.completed + batch.request_counts.failed))

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
        assert self.looks[-1][1] in GOING, f"give the batch more lines: {self.looks[-1]}"

    def expect_whole(self) -> None:
        """It ends, and each line has one result, which is right; no look at it failed."""
        assert wait_until(lambda: self.looks[-1][1] not in GOING, END_S), self.looks[-3:]
        client = self.clients[-1]
        batch = client.batches.retrieve(self.id)
        results, errors = (told(client, file) if file else [] for file in (batch.output_file_id, batch.error_file_id))
        faults = faults_of(list(self.asked), results, errors, self._is_right) + self.faults
        assert not faults, faults[:20]
        counts, all_lines = batch.request_counts, len(self.asked)
        assert (batch.status, counts.total, counts.completed) == ("completed", all_lines, all_lines), batch

    def _is_right(self, result: dict) -> bool:
        scene, model = self.asked[result["custom_id"]]
        said = text_of(result).partition("。")[0]  # then it goes on beyond its end
        return result["response"]["body"]["model"] == model and find_fault("things", scene, said) is None


def line(custom_id: str, scene: Scene, model: str) -> dict:
    body = {"model": model, "messages": [question(scene)], "temperature": 0, "max_tokens": TOKENS, "ignore_eos": True}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}
