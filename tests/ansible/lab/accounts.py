"""People with keys of their own in a lab that shares a database: what they are let do, and what they saw beside what was counted."""

import json
import re
from collections import Counter
from dataclasses import dataclass, field

import httpx

from lingbi.launch.supervision import wait_until
from tests.ansible.lab.lab import ROOT, Lab
from tests.ansible.lab.load import MODEL, PATIENCE_S, question
from tests.client import CHAT, SCENES
from tests.containers.postgres import ensure_postgres

# How docs/rollout.md tells operators to run a command of lingbi on a host.
(COMMAND,) = set(re.findall(r"^sudo (docker exec \S+ lingbi) ", (ROOT / "docs/rollout.md").read_text(), re.M))
SERVER = COMMAND.split()[2]  # a server's container on its host
DATABASE = "gate1"  # whose host is no server
VOLUME = "lingbi-database_database"
REACHES_ALL_S = 10  # what a lab is promised
COUNTED_S = 60  # each second, but a busy machine may take many
TOKENS = ("prompt_tokens", "completion_tokens")
# Run inside a server's container, where nothing but Python is: the usage of one answer.
ASK = f"""
import json, sys, urllib.request
key, body = sys.argv[1:]
headers = {{"Authorization": "Bearer " + key, "Content-Type": "application/json"}}
request = urllib.request.Request("http://127.0.0.1:23333{CHAT}", body.encode(), headers)
print(json.dumps(json.load(urllib.request.urlopen(request))["usage"]))
"""


def declared(lab: Lab) -> dict:
    """What names a database in the lab's inventory; its image is in the lab's registry, since its own cannot be pulled."""
    lab.publish("postgres", "lab", ensure_postgres())
    return {"database": DATABASE, "lingbi_database_image": f"{lab.pull_prefix}postgres:lab"}


def lingbi(lab: Lab, host: str, *command: str) -> str:
    """A command of lingbi on a host, as an operator runs it there."""
    return lab.root(host, *COMMAND.split(), *command)


@dataclass
class Person:
    """Somebody with a key that nobody else uses, who adds up what each answer said that it took."""

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

    def expect_everywhere(self, status: int) -> None:
        """Each server itself soon says this to the key: 200, or 401."""

        def statuses() -> dict:
            return {host: self.get(host, "/v1/models").status_code for host in self.lab.servers}

        assert wait_until(lambda: set(statuses().values()) == {status}, REACHES_ALL_S), (self.name, statuses())

    def expect_counted(self, host: str) -> None:
        """A host soon tells that as much is counted as was told, in all hosts together."""
        assert wait_until(lambda: self.used(host) == self.told, COUNTED_S), (host, self.used(host), self.told)

    def get(self, host: str, path: str) -> httpx.Response:
        with self.client(self.lab.server_url(host)) as client:
            return client.get(path)

    def usage_at(self, host: str) -> dict:
        """What a host tells of the key; nothing where it cannot read that now."""
        told = self.get(host, "/v1/usage")
        return told.json() if told.is_success else {}

    def limits_at(self, host: str) -> list[int]:
        return [limit["most"] for limit in self.usage_at(host).get("limits", ())]

    def used(self, host: str) -> Counter:
        """What is counted of the key this month, as a host tells it."""
        told = self.usage_at(host)
        return amounts(told["used"]["month"]) if told else Counter()

    def reported(self, host: str) -> dict[int, Counter]:
        """The same by scripts/usage, by status."""
        rows = json.loads(lingbi(self.lab, host, "usage", "--by", "key,status", "--key", self.name, "--json"))
        return {row["status"]: amounts(row) for row in rows}

    def ask(self, url: str, number: int) -> int:
        """One question, every second one streamed; its status. What it took is added to what was told."""
        body = {"model": MODEL, "messages": [question(SCENES[number % len(SCENES)])], "max_tokens": 32}
        with self.client(url) as client:
            status, usage = (streamed if number % 2 else whole)(client, body)
        if status == 200:
            self.hear(usage)
        return status

    def ask_within(self, host: str) -> None:
        """A question from inside a host's server, which nobody else may reach."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 32}
        inside = ("docker", "exec", SERVER, "/opt/venv/bin/python", "-c", ASK, self.key, json.dumps(body))
        self.hear(json.loads(self.lab.root(host, *inside)))

    def hear(self, usage: dict) -> None:
        self.told.update(amounts(usage | {"requests": 1}))


def amounts(counts: dict) -> Counter:
    return Counter({name: counts[name] for name in (*TOKENS, "requests")})


def whole(client: httpx.Client, body: dict) -> tuple[int, dict | None]:
    answer = client.post(CHAT, json=body)
    return answer.status_code, answer.json().get("usage")


def streamed(client: httpx.Client, body: dict) -> tuple[int, dict | None]:
    body = body | {"stream": True, "stream_options": {"include_usage": True}}
    with client.stream("POST", CHAT, json=body) as answer:
        events = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: {")]
        return answer.status_code, json.loads(events[-1])["usage"] if events else None
