"""People with keys of their own in the lab: changes of keys on one host, and what clients saw beside what was counted."""

import json
import re
from collections import Counter
from dataclasses import dataclass, field

import httpx

from lingbi.launch.supervision import wait_until
from tests.ansible.lab.lab import ROOT, Lab
from tests.ansible.lab.load import MODEL, PATIENCE_S, question
from tests.client import CHAT, SCENES, metric
from tests.containers.postgres import ensure_postgres

# How docs/rollout.md tells operators to run a command of lingbi on a host.
(COMMAND,) = set(re.findall(r"^sudo (docker exec \S+ lingbi) ", (ROOT / "docs/rollout.md").read_text(), re.M))
SERVER = COMMAND.split()[2]  # a server's container on its host
REACHES_ALL_S = 10
TOKENS = ("prompt_tokens", "completion_tokens")
# Run inside a server's container, where nothing but Python is: the usage of one answer.
ASK_HERE = f"""
import json, os, sys, urllib.request
request = urllib.request.Request("http://127.0.0.1:23333{CHAT}", sys.stdin.buffer.read())
request.add_header("Authorization", "Bearer " + os.environ["KEY"])
request.add_header("Content-Type", "application/json")
print(json.dumps(json.load(urllib.request.urlopen(request))["usage"]))
"""


def database_image(lab: Lab) -> str:
    """PostgreSQL in the lab's registry, since its own image cannot be pulled."""
    lab.publish("postgres", "lab", ensure_postgres())
    return f"{lab.pull_prefix}postgres:lab"


def lingbi(lab: Lab, host: str, *command: str) -> str:
    """A command of lingbi on a host, as an operator runs it there."""
    return lab.root(host, *COMMAND.split(), *command)


def body(number: int) -> dict:
    return {"model": MODEL, "messages": [question(SCENES[number % len(SCENES)])], "max_tokens": 32}


@dataclass
class Person:
    """Somebody with a key, who adds up what each answer said that it took."""

    lab: Lab
    name: str
    key: str
    told: Counter = field(default_factory=Counter)

    @classmethod
    def with_key(cls, lab: Lab, host: str, name: str) -> "Person":
        """Somebody whose key is made on a host, and works on all soon after."""
        person = cls(lab, name, lingbi(lab, host, "key", "add", name))
        person.expect_everywhere(200)
        return person

    def client(self, url: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}", "Connection": "close"}
        return httpx.Client(base_url=url, headers=headers, timeout=PATIENCE_S, trust_env=False)

    def status_at(self, host: str) -> int:
        """What a server itself says to the key: 200, or 401."""
        with self.client(self.lab.server_url(host)) as client:
            return client.get("/v1/models").status_code

    def expect_everywhere(self, status: int) -> None:
        def statuses() -> dict:
            return {host: self.status_at(host) for host in self.lab.servers}

        assert wait_until(lambda: set(statuses().values()) == {status}, REACHES_ALL_S), (self.name, statuses())

    def usage_at(self, host: str) -> dict:
        with self.client(self.lab.server_url(host)) as client:
            return client.get("/v1/usage").raise_for_status().json()

    def limits_at(self, host: str) -> list[int]:
        return [limit["most"] for limit in self.usage_at(host)["limits"]]

    def ask(self, url: str, number: int) -> int:
        """One question, every second one streamed; its status. What it took is added to what was told."""
        with self.client(url) as client:
            status, usage = (streamed if number % 2 else whole)(client, body(number))
        if status == 200:
            self.hear(usage)
        return status

    def hear(self, usage: dict) -> None:
        self.told.update({name: usage[name] for name in TOKENS} | {"requests": 1})

    def ask_within(self, host: str, number: int) -> None:
        """The same from inside a host's server, which nobody else may reach."""
        inside = (
            "docker",
            "exec",
            "--interactive",
            "--env",
            f"KEY={self.key}",
            SERVER,
            "/opt/venv/bin/python",
            "-c",
            ASK_HERE,
        )
        self.hear(json.loads(self.lab.root(host, *inside, given=json.dumps(body(number)))))

    def used(self, host: str) -> Counter:
        """What all hosts counted of the key today, as one of them tells it."""
        day = self.usage_at(host)["used"]["day"]
        return Counter({name: day[name] for name in (*TOKENS, "requests")})

    def reported(self, host: str) -> Counter:
        """The same by scripts/usage, of good requests."""
        rows = json.loads(lingbi(self.lab, host, "usage", "--by", "key,status", "--key", self.name, "--json"))
        assert [row["status"] for row in rows] == [200], rows
        return Counter({name: rows[0][name] for name in (*TOKENS, "requests")})


def whole(client: httpx.Client, asked: dict) -> tuple[int, dict | None]:
    answer = client.post(CHAT, json=asked)
    return answer.status_code, answer.json().get("usage")


def streamed(client: httpx.Client, asked: dict) -> tuple[int, dict | None]:
    asked = asked | {"stream": True, "stream_options": {"include_usage": True}}
    with client.stream("POST", CHAT, json=asked) as answer:
        events = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: {")]
        return answer.status_code, json.loads(events[-1])["usage"] if events else None


def tokens_out(lab: Lab) -> dict[str, float]:
    """By server, the tokens that it has answered since it started."""
    return {host: metric({"url": lab.server_url(host)}, "lingbi_completion_tokens_total") for host in lab.servers}
