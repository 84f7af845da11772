"""How tests ask a running server: about pictures whose contents they know, and for its metrics."""

import itertools

import httpx

from lingbi.images.scenes import Scene, Thing, find_fault
from lingbi.smoke.checks import data_url, turn

COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "black", "pink", "cyan")
SHAPES = ("circle", "square", "triangle", "star")
SCENES = [Scene((Thing(colour, shape),)) for colour, shape in itertools.product(COLOURS, SHAPES)]
QUESTION = "请描述图中内容"
CHAT = "/v1/chat/completions"


def http(server: dict, **options) -> httpx.Client:
    """A client of a server with its key."""
    return httpx.Client(**client_options(server) | options)


def client_options(server: dict) -> dict:
    headers = {"Authorization": f"Bearer {server['key']}"}
    return {"base_url": server["url"], "headers": headers, "timeout": 120, "trust_env": False}


def question(server: dict, scene: Scene, **options) -> dict:
    """The body of a greedy question about a scene."""
    return body(server, [turn(QUESTION, data_url(scene))], **options)


def body(server: dict, messages: list, **options) -> dict:
    return {"model": server["model"], "messages": messages, "max_tokens": 32, "temperature": 0} | options


def fault(scene: Scene, response: httpx.Response) -> str | None:
    """What is wrong with a response to a question; None when it is right."""
    if response.status_code != 200:
        return f"{response.status_code}: {response.text[:200]}"
    return find_fault("things", scene, response.json()["choices"][0]["message"]["content"])


def metric(server: dict, name: str) -> float:
    """The sum of a metric over its labels; 0 where it is not there yet."""
    lines = httpx.get(server["url"] + "/metrics", trust_env=False).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.split("{")[0].split(" ")[0] == name)


def is_let_in(server: dict, **options) -> bool:
    """Whether a running server has read this key by now: it looks for new ones once a second."""
    with http(server, **options) as client:
        return client.get("/v1/models").status_code == 200


def is_at_rest(server: dict) -> bool:
    """Whether no answer runs and no request is inside."""
    return metric(server, "lingbi_sessions") == 0 == metric(server, "lingbi_requests_inside")
