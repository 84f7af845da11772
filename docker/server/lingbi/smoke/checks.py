"""The checks of scripts/smoke: each is a named function that takes the server under test."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from lingbi.engine.prompt_forms import PUBLISHED
from lingbi.http.readiness import PROBE_QUESTION
from lingbi.images.messages import data_url as url_of
from lingbi.images.messages import user_message as turn
from lingbi.images.scenes import Scene, Thing, draw, find_fault
from lingbi.model import catalogue

DEMO_ANSWER_TOKENS = 64
ANSWER_TOKENS = 16  # the CPU engine takes a second per token with the 1.8B model
# Prompt tokens of PROBE_QUESTION in the published tokenizer: 请, 描述, 图中, 内容.
QUESTION_TOKENS = 4
ONE = Scene((Thing("red", "circle", size=0.5),), width=640, height=480)
TWO = Scene((Thing("blue", "square", 0.25, 0.3, 0.35), Thing("orange", "star", 0.75, 0.7, 0.35)), width=480, height=480)
THREE = Scene(
    (
        Thing("blue", "square", 0.18, 0.2, 0.25),
        Thing("green", "triangle", 0.5, 0.5, 0.25),
        Thing("orange", "star", 0.82, 0.8, 0.28),
    ),
    width=480,
    height=480,
)
CORNER = Scene((Thing("yellow", "star", 0.82, 0.82, 0.25),), background="black", width=300, height=400)


class CheckFailed(Exception):
    """A check failed; the message says what was seen."""


@dataclass(frozen=True)
class Target:
    """The server under test: base URL, HTTP client, API key, the model to ask for, and whether a gateway is in front.

    others: further models behind the same address; is_first: whether this is the first of them that is tested.
    """

    url: str
    client: httpx.Client
    key: str
    model: str
    has_gateway: bool = False
    others: tuple[str, ...] = ()
    is_first: bool = True

    @property
    def is_demo(self) -> bool:
        return self.model == catalogue.DEMO_SERVED_NAME

    @property
    def greedy(self) -> dict[str, int]:
        """Options of a greedy answer, long enough to judge."""
        return {"max_tokens": DEMO_ANSWER_TOKENS if self.is_demo else ANSWER_TOKENS, "top_k": 1, "temperature": 0}

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return self.client.post(path, json={"model": self.model} | body, headers=self.headers)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def ask(self, messages: list[Any], **options: Any) -> dict[str, Any]:
        """The body of a greedy chat completion; raises CheckFailed unless it is a 200."""
        response = self.post("/v1/chat/completions", {"messages": messages} | self.greedy | options)
        expect(response.status_code == 200, f"status {response.status_code}: {response.text[:200]}")
        body: dict[str, Any] = response.json()
        return body

    def answer(self, messages: list[Any], **options: Any) -> str:
        return str(self.ask(messages, **options)["choices"][0]["message"]["content"])


Run = Callable[[Target], str]  # returns what it saw, or raises CheckFailed


@dataclass(frozen=True)
class Check:
    """A named check."""

    name: str
    run: Run
    applies: Callable[[Target], bool]


CHECKS: list[Check] = []


def check(name: str, applies: Callable[[Target], bool] = lambda target: True) -> Callable[[Run], Run]:
    """Add a function to the list of checks."""

    def add(run: Run) -> Run:
        CHECKS.append(Check(name, run, applies))
        return run

    return add


def is_demo(target: Target) -> bool:
    return target.is_demo


def is_first(target: Target) -> bool:
    """Of what is the same whichever model is asked."""
    return target.is_first


def expect(condition: object, message: str) -> None:
    if not condition:
        raise CheckFailed(message)


def data_url(scene: Scene, kind: str = "PNG") -> str:
    """A drawn scene as a data URL."""
    return url_of(draw(scene), kind)


def expect_right(kind: str, scene: Scene, answer: str) -> str:
    fault = find_fault(kind, scene, answer)
    expect(fault is None, f"wrong answer {answer!r}: {fault}")
    return answer


@check("live", applies=is_first)
def live(target: Target) -> str:
    status = target.client.get("/live").status_code
    expect(status == 200, f"status {status}")
    return "200"


@check("ready", applies=is_first)
def ready(target: Target) -> str:
    response = target.client.get("/ready")
    expect(response.status_code == 200, f"status {response.status_code}: {response.text[:200]}")
    told = response.json()
    return f"probe {told['probe']}" if "probe" in told else f"{told['phase']}"


@check("key-required", applies=is_first)
def key_required(target: Target) -> str:
    for headers in ({}, {"Authorization": "Bearer not-a-key"}):
        status = target.client.get("/v1/models", headers=headers).status_code
        expect(status == 401, f"status {status} with headers {headers}")
    return "401 without a key and with a wrong one"


@check("picture")
def image(target: Target) -> str:
    body = target.ask([turn(PROBE_QUESTION, data_url(ONE))])
    choice = body["choices"][0]
    expect(choice["message"]["role"] == "assistant", f"role {choice['message']['role']!r}")
    expect(choice["message"]["content"].strip(), "the answer is empty")
    expect(choice["finish_reason"] in ("stop", "length"), f"finish_reason {choice['finish_reason']!r}")
    usage = body["usage"]
    expect(usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"], f"usage {usage}")
    return str(choice["message"]["content"])


@check("prompt-tokens", applies=lambda target: published(target.model) is not None)
def prompt_tokens(target: Target) -> str:
    expected = expected_tokens(target.model, prompts_of(target))
    seen = target.ask([turn(PROBE_QUESTION, data_url(ONE))], max_tokens=1)["usage"]["prompt_tokens"]
    expect(seen == expected, f"{seen} prompt tokens, expected {expected}")
    return f"{seen}"


def prompts_of(target: Target) -> dict[str, Any]:
    """How the model's server says it builds prompts; empty if it does not say so."""
    if not target.others:
        told: dict[str, Any] = target.client.get("/ready").json()
    else:
        told = target.client.get(f"/v1/models/{target.model}", headers=target.headers).json()["lingbi"]
    return told.get("prompt") or {}


def expected_tokens(served_name: str, told: dict[str, Any]) -> int:
    """Prompt tokens of PROBE_QUESTION about ONE; told: how the server says it builds prompts, if it says so.

    Raises CheckFailed for a model that is not published.
    """
    model = published(served_name)
    if model is None:
        raise CheckFailed(f"{served_name} is not in the catalogue")
    # The published form takes its text from the model folder, so only the server knows how many tokens it has.
    around: int = told["template_tokens"] if told.get("form") == PUBLISHED else catalogue.TEMPLATE_TOKENS
    hd_num = told.get("hd_num") or catalogue.HD_NUM
    return around + QUESTION_TOKENS + model.image_tokens(ONE.width, ONE.height, hd_num)


def published(served_name: str) -> catalogue.Model | None:
    return next((model for model in catalogue.MODELS if model.served_name == served_name), None)


@check("describe-zh", applies=is_demo)
def describe_zh(target: Target) -> str:
    return expect_right("describe", TWO, target.answer([turn("请描述图中内容", data_url(TWO))]))


@check("describe-en", applies=is_demo)
def describe_en(target: Target) -> str:
    return expect_right("describe", THREE, target.answer([turn("Describe the picture.", data_url(THREE, "JPEG"))]))


@check("colour", applies=is_demo)
def colour(target: Target) -> str:
    return expect_right("colour", CORNER, target.answer([turn("What colour is it?", data_url(CORNER))]))


@check("number", applies=is_demo)
def number(target: Target) -> str:
    return expect_right("number", THREE, target.answer([turn("图中有几个图形?", data_url(THREE))]))


@check("position", applies=is_demo)
def position(target: Target) -> str:
    return expect_right("position", CORNER, target.answer([turn("Where is the star?", data_url(CORNER))]))


@check("conversation", applies=is_demo)
def conversation(target: Target) -> str:
    messages = [turn("它是什么颜色?", data_url(ONE))]
    first = expect_right("colour", ONE, target.answer(messages))
    messages += [{"role": "assistant", "content": first}, {"role": "user", "content": "它是什么形状?"}]
    return f"{first} / {expect_right('shape', ONE, target.answer(messages))}"


@check("stream")
def stream(target: Target) -> str:
    """The streamed answer is complete, ends as the protocol says, and equals the answer without streaming."""
    messages = [turn(PROBE_QUESTION, data_url(ONE))]
    body = {"model": target.model, "messages": messages, "stream": True} | target.greedy
    with target.client.stream("POST", "/v1/chat/completions", json=body, headers=target.headers) as response:
        expect(response.status_code == 200, f"status {response.status_code}")
        events = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    expect(events[-1] == "[DONE]", f"the stream ends with {events[-1]!r}")
    choices = [json.loads(event)["choices"][0] for event in events[:-1]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    expect(text == target.answer(messages), f"streamed {text!r} differs from the unstreamed answer")
    expect(choices[-1]["finish_reason"] in ("stop", "length"), f"last chunk {choices[-1]}")
    return f"{len(choices)} chunks"


@check("text-completion")
def text_completion(target: Target) -> str:
    response = target.post("/v1/completions", {"prompt": "The picture shows", "max_tokens": 8})
    expect(response.status_code == 200, f"status {response.status_code}: {response.text[:200]}")
    return repr(response.json()["choices"][0]["text"])


@check("inner-url")
def inner_url(target: Target) -> str:
    """The server does not fetch URLs that only it can reach on behalf of a client."""
    for url in ("http://127.0.0.1:9/picture.png", "http://169.254.169.254/latest/meta-data/"):
        response = target.post("/v1/chat/completions", {"messages": [turn(PROBE_QUESTION, url)]})
        expect(response.status_code == 400, f"{url}: status {response.status_code}")
    return str(response.json()["error"]["message"])


@check("bad-picture")
def bad_image(target: Target) -> str:
    """A broken image and a local path are refused, and the next question is answered."""
    for url in ("data:image/png;base64,bm90IGEgcGljdHVyZQ==", "/etc/hostname", "file:///etc/hostname"):
        response = target.post("/v1/chat/completions", {"messages": [turn(PROBE_QUESTION, url)]})
        expect(response.status_code == 400, f"{url}: status {response.status_code}")
        message = str(response.json()["error"]["message"])
    expect(target.answer([turn(PROBE_QUESTION, data_url(ONE))]), "no answer after a bad picture")
    return message
