"""Quotas of a real worker: what is answered, what is refused and with which words, and what the key is told of its use."""

import contextlib
import json
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import httpx
import openai
import pytest
import sqlalchemy as sa

from lingbi.accounts.database import Database, parse_url
from lingbi.accounts.key_file import ensure_keys
from lingbi.accounts.keys.changes import Change, add_key, change_key
from lingbi.accounts.keys.groups import add_group
from lingbi.accounts.tables import holds
from lingbi.launch.supervision import wait_until
from tests.client import CHAT, SCENES, body, fault, http, metric, question
from tests.conftest import running_worker
from tests.keys import add_to_file

VISITOR = "X-Lingbi-Visitor"
DAY, MINUTE = "day", "minute"
LIMITS = {
    "two": {("requests", DAY): 2},
    "tokens": {("tokens", DAY): 400},
    "pictures": {("images", "month"): 1, ("requests", DAY): 100},
    "nothing": {("tokens", DAY): 0},
    "together": {("tokens", DAY): 20_000},
    "away": {("requests", DAY): 2},
    "free": {},
    "discreet": {},
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A worker whose keys have limits: as `server`, with .as_("name") for one of a key."""
    state_dir = tmp_path_factory.mktemp("quotas") / "state"
    database = Database(parse_url(f"sqlite:///{state_dir}/accounts/accounts.db"))
    database.bring_up_to_date()
    add_group(database, "visitors", Change(members={("requests", DAY): 1}))
    keys = {name: add_key(database, name, Change(limits=limits)) for name, limits in LIMITS.items()}
    ensure_keys(state_dir / "keys", state_dir / "api-key")
    page = add_to_file(state_dir / "keys", "ui")
    with running_worker(state_dir, LINGBI_TIME_ZONE="Asia/Shanghai") as server:
        yield Lab(server | {"state_dir": state_dir}, database, keys | {"ui": page})


class Lab:
    def __init__(self, server, database, keys):
        self.server, self.database, self.keys = server, database, keys

    def as_(self, name):
        return self.server | {"key": self.keys[name]}

    def used(self, name, headers=None):
        with http(self.as_(name)) as client:
            response = client.get("/v1/usage", headers=headers)
            assert response.status_code == 200, response.text
            return response.json()

    def held(self):
        with self.database.read() as connection:
            return connection.execute(sa.select(holds)).all()


def text(server, **options):
    return body(server, [{"role": "user", "content": "hi"}], **options)


def test_what_a_key_may_is_answered_and_then_the_official_client_gets_the_sentence(lab):
    server = lab.as_("two")
    with http(server) as client:
        for number, left in enumerate(("1", "0")):
            answered = client.post(CHAT, json=question(server, SCENES[number]))
            assert fault(SCENES[number], answered) is None
            assert answered.headers["x-ratelimit-limit-requests"] == "2"
            assert answered.headers["x-ratelimit-remaining-requests"] == left
            assert answered.headers["x-ratelimit-reset-requests"].endswith("s")
    assert wait_until(lambda: lab.used("two")["limits"][0]["used"] == 2, 10)
    before = metric(server, "lingbi_refused_requests_total")
    client = openai.OpenAI(base_url=f"{server['url']}/v1", api_key=server["key"])
    with client, pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(**question(server, SCENES[0]))
    assert refused.value.code == refused.value.type == "insufficient_quota"
    said = refused.value.body["message"]
    assert said.startswith("this key has used 2 of 2 requests a day; the limit resets at 2")
    assert said.endswith(" 00:00 (Asia/Shanghai)")
    assert 0 < int(refused.value.response.headers["retry-after"]) <= 25 * 3600
    # It did not ask twice more, as it does where it is not told.
    assert metric(server, "lingbi_refused_requests_total") - before == 1


def test_a_long_answer_that_crosses_its_quota_is_finished_and_counts(lab):
    server = lab.as_("tokens")
    with http(server) as client:
        answered = client.post(CHAT, json=text(server, max_tokens=500, ignore_eos=True)).json()
        assert answered["usage"]["completion_tokens"] == 500
        total = answered["usage"]["total_tokens"]
        assert wait_until(lambda: lab.used("tokens")["limits"][0]["used"] == total, 10)
        refused = client.post(CHAT, json=text(server))
        assert refused.status_code == 429
        assert f"this key has used {total} of 400 tokens a day" in refused.json()["error"]["message"]
        assert refused.json()["error"]["quota"]["remaining"] == 0
        assert refused.headers["x-ratelimit-remaining-tokens"] == "0"
    assert wait_until(lambda: lab.used("tokens")["used"]["day"]["requests"] == 2, 20)  # the refused one is counted too
    for period in lab.used("tokens")["used"].values():
        assert period["completion_tokens"] == 500 and period["prompt_tokens"] == total - 500
        assert period["gpu_seconds"] > 0
        assert [model["model"] for model in period["models"] if model["completion_tokens"]] == [server["model"]]


def test_pictures_are_counted_and_questions_without_one_go_on(lab):
    server = lab.as_("pictures")
    with http(server) as client:
        assert fault(SCENES[0], client.post(CHAT, json=question(server, SCENES[0]))) is None
        assert wait_until(lambda: lab.used("pictures")["limits"][0]["used"] == 1, 10)
        refused = client.post(CHAT, json=question(server, SCENES[1]))
        assert refused.status_code == 429 and "1 of 1 images a month" in refused.json()["error"]["message"]
        answered = client.post(CHAT, json=text(server))
        assert answered.status_code == 200 and answered.headers["x-ratelimit-remaining-images"] == "0"
        assert answered.headers["x-ratelimit-remaining-requests"] == "98"


def test_a_quota_of_nothing_refuses_with_the_remedy(lab):
    server = lab.as_("nothing")
    with http(server) as client:
        refused = client.post(CHAT, json=text(server))
    assert refused.status_code == 429 and refused.json()["error"]["code"] == "insufficient_quota"
    assert "may use no tokens" in refused.json()["error"]["message"]


def test_a_key_without_limits_has_no_headers_and_no_rows(lab):
    server = lab.as_("free")
    with http(server) as client, client.stream("POST", CHAT, json=text(server, stream=True, max_tokens=64)) as answered:
        assert answered.status_code == 200
        assert not [name for name in answered.headers if name.startswith("x-ratelimit")]
        assert not [row for row in lab.held() if row.subject == "key:free"]
        answered.read()


def test_no_prompt_picture_or_answer_is_written_down(lab):
    """Neither in the database and the journals nor in the log, which all know the key."""
    server, words = lab.as_("discreet"), "words-that-nobody-else-says"
    asked = question(server, SCENES[5])
    asked["messages"].insert(0, {"role": "system", "content": words})
    with http(server) as client:
        answered = client.post(CHAT, json=asked).json()
    tokens = answered["usage"]["completion_tokens"]
    assert wait_until(lambda: lab.used("discreet")["used"]["day"]["completion_tokens"] == tokens, 10)
    kept = b"".join(file.read_bytes() for file in lab.server["state_dir"].rglob("*") if file.is_file())
    assert kept.count(b"discreet") > 2
    answer = answered["choices"][0]["message"]["content"]
    picture = next(part["image_url"]["url"] for part in asked["messages"][-1]["content"] if "image_url" in part)
    for text in (words, answer, json.dumps(answer)[1:-1], picture[60:120]):
        assert len(text) > 3 and text.encode() not in kept, text


def test_the_official_client_waits_for_what_runs_and_then_gets_its_answer(lab):
    server = lab.as_("together")
    change_key(lab.database, "together", Change(limits={("tokens", DAY): 5000}))
    assert wait_until(lambda: lab.used("together")["limits"][0]["most"] == 5000, 10)
    endless = text(server, max_tokens=4000, ignore_eos=True, stream=True)
    with openai.OpenAI(base_url=f"{server['url']}/v1", api_key=server["key"]) as client, ThreadPoolExecutor(1) as pool:
        with (
            running(server, endless),
            running(server, text(server, ignore_eos=True, stream=True) | {"max_tokens": None}),
        ):
            refused = httpx.post(
                server["url"] + CHAT,
                json=text(server, max_tokens=2000),
                headers={"Authorization": f"Bearer {server['key']}"},
            )
            assert refused.status_code == 429 and refused.json()["error"]["code"] == "rate_limit_exceeded"
            assert refused.headers["retry-after"] == "2" and "x-should-retry" not in refused.headers
            begun = time.monotonic()
            waiting = pool.submit(client.chat.completions.create, **text(server, max_tokens=2000))
            time.sleep(0.5)
        assert waiting.result(30).choices[0].message.content is not None
        assert time.monotonic() - begun >= 2


@contextlib.contextmanager
def running(server, asked):
    """An answer that runs as long as the block does."""
    with http(server) as client, client.stream("POST", CHAT, json=asked) as response:
        assert response.status_code == 200, response.read()
        lines = response.iter_lines()
        next(lines)
        yield lines


def test_each_visitor_of_the_page_is_an_account(lab):
    server, both = lab.as_("ui"), ("alice", "王芳")
    with http(server) as client:
        for login in both:
            header = {VISITOR: quote(login)}
            assert client.post(CHAT, json=text(server), headers=header).status_code == 200
            assert wait_until(lambda header=header: lab.used("ui", header)["limits"][0]["used"] == 1, 10)
            refused = client.post(CHAT, json=text(server), headers=header)
            assert refused.status_code == 429
            assert refused.json()["error"]["message"].startswith(
                "this key (as each of the group visitors) has used 1 of 1 requests a day"
            )
        assert client.post(CHAT, json=text(server)).status_code == 200  # the page for itself
    found = lab.used("ui", {VISITOR: quote("王芳")})
    assert (found["key"], found["group"], found["used"]["day"]["models"][0]["model"]) == (
        "ui/王芳",
        "visitors",
        server["model"],
    )
    with sqlite3.connect(lab.server["state_dir"] / "accounts" / "accounts.db") as database:
        made = database.execute(
            "SELECT name, kind, group_name FROM keys WHERE name LIKE 'ui/%' ORDER BY name"
        ).fetchall()
    assert made == [(f"ui/{login}", "visitor", "visitors") for login in both]


@pytest.mark.parametrize(
    "key, login, word",
    [
        ("free", "alice", "for the page's own key"),
        ("ui", "", "is no login"),
        ("ui", "a b", "is no login"),
        ("ui", "../etc", "is no login"),
        ("ui", "%ff", "is no login"),
        ("ui", "x" * 65, "is no login"),
    ],
)
def test_nobody_else_names_a_visitor(lab, key, login, word):
    with http(lab.as_(key)) as client:
        refused = client.get("/v1/usage", headers={VISITOR: login})
    assert refused.status_code == 400 and word in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    "asked, served", [("flex", "flex"), ("auto", "default"), ("priority", "default"), (None, None)]
)
def test_an_answer_names_its_tier(lab, asked, served):
    server = lab.as_("free")
    with openai.OpenAI(base_url=f"{server['url']}/v1", api_key=server["key"]) as client:
        options = {"service_tier": asked} if asked else {}
        assert client.chat.completions.create(**text(server), **options).service_tier == served
        chunks = list(client.chat.completions.create(**text(server), stream=True, **options))
        assert {chunk.service_tier for chunk in chunks} == {served}
        assert client.responses.create(model=server["model"], input="hi", **options).service_tier == served


def test_an_unknown_tier_is_refused(lab):
    server = lab.as_("free")
    with http(server) as client:
        refused = client.post(CHAT, json=text(server, service_tier="cheap"))
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "service_tier"


def test_while_the_database_is_away_a_worker_goes_by_what_it_knows(lab):
    server = lab.as_("away")
    with http(server) as client:
        assert client.post(CHAT, json=text(server)).status_code == 200
        assert wait_until(lambda: lab.used("away")["limits"][0]["used"] == 1, 10)
        with sqlite3.connect(lab.server["state_dir"] / "accounts" / "accounts.db", isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            assert client.post(CHAT, json=text(server)).status_code == 200
            refused = client.post(CHAT, json=text(server))
            other.execute("ROLLBACK")
        assert refused.status_code == 429 and "2 of 2 requests a day" in refused.json()["error"]["message"]
        log = lab.server["log"].read_text()
        assert log.count("quotas go on without the database") == 1, "only the first request waits for it"
        assert wait_until(lambda: lab.used("away")["limits"][0]["used"] == 2, 20)
        assert wait_until(lambda: "quotas are asked of the database again" in lab.server["log"].read_text(), 20)
    assert wait_until(lambda: not lab.held(), 10)
