"""People who ask about pictures all the time, and check every answer by what the picture shows.

Nothing is asked twice: a request that fails, an answer that is wrong and a stream that ends before
its end are each counted, with what was seen.
"""

import contextlib
import functools
import itertools
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx

from lingbi.images.scenes import Scene, find_fault
from lingbi.launch.supervision import wait_until
from lingbi.smoke.checks import data_url, turn
from tests.client import CHAT, QUESTION, SCENES

MODEL = "internlm-xcomposer2-demo"
PATIENCE_S = 180
LONG = 3000  # tokens, which take 2 s or more
HURRY_S = 0.1
PAUSE_S = 4.0  # else the askers of a rollout take both cores, and it waits for them
APART_S = 1


@dataclass
class Load:
    """Askers against a gateway; use it as a context: it asks until the end of the block.

    seconds: {time.monotonic() at which a request began: seconds until it ended}; faults: (when by the clock, kind,
    what was seen, when its request began as in seconds). patience_s: for the next bytes of an answer; model: who has to answer.
    """

    url: str
    key: str
    askers: int = 4
    pause_s: float = 0.0
    patience_s: float = PATIENCE_S
    model: str = MODEL
    counts: Counter = field(default_factory=Counter)
    faults: list = field(default_factory=list)
    seconds: dict = field(default_factory=dict)

    def __enter__(self) -> "Load":
        self._end, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._ask_on, args=(number,)) for number in range(self.askers)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def until(self, answers: int, timeout_s: float = 600) -> None:
        """Wait until so many answers have come; the askers hurry meanwhile."""
        usual, self.pause_s = self.pause_s, min(self.pause_s, HURRY_S)
        came = wait_until(lambda: self.counts.total() >= answers, timeout_s)
        self.pause_s = usual
        assert came, f"only {self.counts.total()} answers within {timeout_s} s: {self.counts}"

    def _ask_on(self, number: int) -> None:
        scenes = itertools.cycle(SCENES[number:] + SCENES[:number])
        with self._client() as client:
            for turn_number in itertools.count(number):
                if self._end.is_set():
                    return
                begun = time.monotonic()
                self._note(begun, *self._ask(client, next(scenes), turn_number % 2 == 1, begun))
                self._end.wait(self.pause_s)

    def _client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"}
        headers["Connection"] = "close"  # as many people: an idle connection may be closed by a reload
        return httpx.Client(base_url=self.url, headers=headers, timeout=self.patience_s, trust_env=False)

    def _ask(self, client: httpx.Client, scene: Scene, is_stream: bool, begun: float) -> tuple:
        """(kind, what was seen) of one question: right, wrong, cut or failed."""
        body = {"model": self.model, "messages": [question(scene)], "max_tokens": 32, "temperature": 0}
        try:
            kind, text = streamed(client, body) if is_stream else whole(client, body)
        except httpx.HTTPError as error:
            return "failed", f"{type(error).__name__}: {error}"
        self.seconds[begun] = time.monotonic() - begun
        if kind == "right" and (fault := find_fault("things", scene, text)):
            return "wrong", f"{text!r}: {fault}"
        return kind, text

    def ask_long(self, tokens: int) -> threading.Thread:
        """One stream of so many tokens, counted as the others; returns its thread."""
        body = {"model": self.model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": tokens}
        body |= {"temperature": 0, "ignore_eos": True}

        def ask():
            begun = time.monotonic()
            try:
                with self._client() as client:
                    kind, text = streamed(client, body)
            except httpx.HTTPError as error:
                kind, text = "failed", f"{type(error).__name__}: {error}"
            self._note(begun, "long" if kind == "right" else kind, text)

        thread = threading.Thread(target=ask)
        thread.start()
        return thread

    @contextlib.contextmanager
    def asking_long(self, tokens: int, at_once: int = 2):
        """So many long streams in the block, begun apart, so that one runs at every moment; the last are waited for."""
        end, threads, begun = threading.Event(), [], 0.0

        def go_on():
            nonlocal begun
            while not end.wait(0.2):
                threads[:] = [thread for thread in threads if thread.is_alive()]
                if len(threads) < at_once and time.monotonic() - begun > APART_S:
                    begun = time.monotonic()
                    threads.append(self.ask_long(tokens))

        keeper = threading.Thread(target=go_on)
        keeper.start()
        try:
            yield
        finally:
            end.set()
            for thread in (keeper, *threads):
                thread.join(PATIENCE_S)

    def _note(self, begun: float, kind: str, seen: str) -> None:
        with self._lock:
            self.counts[kind] += 1
            if kind not in ("right", "long"):
                self.faults.append((time.strftime("%H:%M:%S"), kind, seen[:300], begun))


def asking(lab, pause_s: float = PAUSE_S, **more) -> Load:
    """Two people who ask at the lab's first gateway."""
    return Load(lab.url(), lab.key, askers=2, pause_s=pause_s, **more)


def expect_spotless(load: Load) -> None:
    """All that was asked was answered, and rightly."""
    assert load.faults == [] and load.counts["right"] > 0, (load.counts, load.faults[:5])


@functools.cache
def question(scene: Scene) -> dict:
    """The message that asks about a scene; its picture is drawn once."""
    return turn(QUESTION, data_url(scene))


def whole(client: httpx.Client, body: dict) -> tuple:
    response = client.post(CHAT, json=body)
    if response.status_code != 200:
        return "failed", f"{response.status_code}: {response.text}"
    told = response.json()
    return by_whom(body, [told["model"]], told["choices"][0]["message"]["content"])


def by_whom(body: dict, models: list, text: str) -> tuple:
    """An answer, which is wrong if another model than the one that was asked gave it."""
    if set(models) - {body["model"]}:
        return "wrong", f"{body['model']} was asked, and {set(models)} answered {text!r}"
    return "right", text


def streamed(client: httpx.Client, body: dict) -> tuple:
    """A streamed answer; cut when it began and did not come to its end."""
    events = []
    with client.stream("POST", CHAT, json=body | {"stream": True}) as response:
        if response.status_code != 200:
            return "failed", f"{response.status_code}: {response.read().decode(errors='replace')}"
        try:
            events = [line.removeprefix("data: ") for line in response.iter_lines() if line]
        except httpx.HTTPError as error:
            return "cut", f"{type(error).__name__} {error} after {len(events)} events"
    if not events or events[-1] != "[DONE]":
        return "cut", f"the stream ends with {events[-1:]}"
    chunks = [json.loads(event) for event in events[:-1]]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    return by_whom(body, [chunk["model"] for chunk in chunks], text)
