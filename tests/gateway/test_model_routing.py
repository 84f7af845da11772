"""Several models behind one address: the model that a request names decides which server gets it."""

import json
import os
import shutil
import signal
import threading

import httpx
import psutil
import pytest

from lingbi.launch.supervision import wait_until
from lingbi.model.resolve import DEMO_FOLDER
from tests.client import CHAT, SCENES, fault, http, is_let_in, question
from tests.conftest import lingbi, running_worker, suspended
from tests.gateway.conftest import running_gateway

MIB = 1 << 20
PATHS = (CHAT, "/v1/completions", "/v1/responses")
PICTURE = "data:image/png;base64," + "A" * (20 * MIB)


@pytest.fixture
def two(upstreams):
    """A gateway before the models `one` and `two`, with an alias of the latter; `.one` and `.two` are their servers."""
    one, other = upstreams(2)
    servers = [f"one={one.address}", f"two={other.address}"]
    with running_gateway(servers, ALIASES="gpt-4o=two", MAX_BODY_MIB=64) as gateway:
        gateway.one, gateway.two = one, other
        yield gateway


def name_of(answer: httpx.Response) -> str:
    return {"server-0": "one", "server-1": "two"}[answer.json()["name"]]


def post(gateway, content, path=CHAT, inner=False, **options) -> httpx.Response:
    body = content if isinstance(content, bytes) or hasattr(content, "__next__") else json.dumps(content).encode()
    return httpx.post((gateway.inner_url if inner else gateway.url) + path, content=body, timeout=60, **options)


def test_the_model_decides_whatever_the_order_the_size_and_the_path(two):
    like_it = [{"role": "user", "content": '"model": "two"'}]
    for path in PATHS:
        for inner in (False, True):
            assert name_of(post(two, {"model": "one", "messages": like_it}, path, inner)) == "one"
            assert name_of(post(two, {"messages": like_it, "model": "two"}, path, inner)) == "two"
    for body in ({"picture": PICTURE, "model": "two"}, {"model": "two", "picture": PICTURE}):
        answer = post(two, body)
        assert name_of(answer) == "two" and answer.json()["bytes"] == len(json.dumps(body))


def test_of_a_model_that_is_given_twice_the_last_one_counts_as_in_the_servers(two):
    """Small or with 20 MB of picture between them, and written with escapes; what is in a string is no field."""
    for filler in ("", PICTURE):
        for last, name in (("two", "m\\u006fdel"), ("one", "model")):
            body = f'{{"model": "gpt-4o", "filler": "{filler} \\"model\\": \\"three\\"", "{name}": "{last}"}}'.encode()
            answer = post(two, body)
            assert name_of(answer) == last and answer.json()["bytes"] == len(body)


def test_the_server_hears_which_model_an_alias_means(two):
    forged = {"X-Lingbi-Model": "one", "X-Lingbi-Pool": "servers", "X-Accel-Redirect": "@x"}
    assert name_of(post(two, {"model": "gpt-4o"}, headers=forged)) == "two"
    assert two.two.seen[-1]["headers"]["x-lingbi-model"] == "two"
    line = two.requests(CHAT, 1)[0]
    assert (line["model"], line["server"], line["server_status"]) == ("two", two.two.address, "200")
    assert " : " not in line["connect_s"] + line["header_s"]


def test_a_body_of_unknown_size_is_routed_too(two):
    parts = json.dumps({"messages": "x" * MIB, "model": "two"}).encode()
    assert name_of(post(two, (parts[at : at + 65536] for at in range(0, len(parts), 65536)).__iter__())) == "two"


def test_a_stream_passes_as_it_comes(two):
    two.two.behaviour = "stream"
    with httpx.stream("POST", two.url + CHAT, content=b'{"model": "two"}', timeout=30) as answer:
        lines = answer.iter_lines()
        assert next(lines) == 'data: {"number": 0}' and len(two.two.sent) < 50


def test_an_unknown_model_is_one_404_that_names_those_that_there_are(two):
    for name in ("three", "x" * 10_000, "default", "ONE"):
        answer = post(two, {"model": name})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
        assert "'gpt-4o', 'one', 'two'" in error["message"] and "x" * 101 not in error["message"]
    for body in ({}, {"model": None}, {"model": ""}, {"model": 1}):
        answer = post(two, body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
    assert not [seen for seen in two.one.seen + two.two.seen if seen["path"] == CHAT]


def test_what_is_no_json_is_refused_by_a_server_in_its_own_words(two):
    for body in (b"", b"no JSON", b'{"model": "one"', b"[]"):
        assert post(two, body).status_code == 200  # of these servers, which answer whatever comes
    assert len([seen for seen in two.one.seen + two.two.seen if seen["path"] == CHAT]) == 4


def test_another_server_of_the_same_model_is_asked_when_one_fails(upstreams):
    one, first, second = upstreams(3)
    servers = [f"one={one.address}", f"two={first.address}", f"two={second.address}"]
    with running_gateway(servers) as gateway:
        first.behaviour = "refuse"
        body = {"model": "two", "picture": "x" * MIB}
        found = [post(gateway, body).json() for _ in range(6)]
        assert found == [{"name": "server-2", "bytes": len(json.dumps(body))}] * 6
        second.behaviour = "refuse"
        refused = post(gateway, body)
        assert refused.status_code == 503 and not one.seen


def test_a_model_joins_and_leaves_with_its_list(upstreams, tmp_path):
    one, other = upstreams(2)
    tmp_path.chmod(0o755)
    lines = [f"server {one.address}; # model=one\n", f"server {other.address}; # model=two\n"]
    (tmp_path / "servers.conf").write_text(lines[0])
    with running_gateway([], SERVERS_DIR=tmp_path) as gateway:
        assert name_of(post(gateway, {"model": "two"})) == "one"  # it is alone, and a real one would refuse the name
        (tmp_path / "servers.conf").write_text("".join(lines))
        assert gateway.command("reload").returncode == 0
        assert wait_until(lambda: is_answered_by(gateway, "two", "two"), 20), gateway.log()
        (tmp_path / "servers.conf").write_text(lines[0] + lines[1].replace(";", " down;"))
        assert gateway.command("reload").returncode == 0
        assert wait_until(lambda: post(gateway, {"model": "two"}).status_code == 503, 20)
        (tmp_path / "servers.conf").write_text(lines[0] + lines[1].replace("# model=two", ""))
        refused = gateway.command("reload")
        assert refused.returncode == 2 and "names no model for" in refused.stderr
        (tmp_path / "servers.conf").write_text(lines[0])
        assert gateway.command("reload").returncode == 0
        assert wait_until(lambda: is_answered_by(gateway, "two", "one"), 20)


def is_answered_by(gateway, model: str, server: str) -> bool:
    answer = post(gateway, {"model": model})
    return answer.status_code == 200 and name_of(answer) == server


def router_of(gateway) -> psutil.Process | None:
    """The router is the child of the process that runs beside nginx."""
    found = [child for watcher in psutil.Process(gateway.process.pid).children() for child in watcher.children()]
    return next((child for child in found if "lingbi_gateway" in child.cmdline()), None)


def test_requests_wait_while_the_router_starts_again(two):
    assert wait_until(lambda: router_of(two), 10)
    before = router_of(two)
    before.kill()
    assert name_of(post(two, {"model": "two"})) == "two"
    assert wait_until(lambda: router_of(two) not in (None, before), 10)
    assert "the router ended; it is started again" in two.log()


def test_health_sees_that_no_router_answers(two):
    assert httpx.get(two.url + "/healthz").json() == {"status": "ok"}
    with suspended(router_of(two).parent()):
        router_of(two).kill()
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(two.url + "/healthz", timeout=1)
    assert wait_until(lambda: httpx.get(two.url + "/healthz", timeout=5).status_code == 200, 10)


def test_without_the_process_that_keeps_the_router_the_gateway_ends(two):
    """Nobody would start the router again. As root, nginx is not the router's to end: then the log says so."""
    router_of(two).parent().send_signal(signal.SIGKILL)
    assert wait_until(lambda: two.process.poll() is not None or "watcher is gone" in two.log(), 10), two.log()


def test_the_router_and_all_else_end_with_nginx(upstreams):
    one, other = upstreams(2)
    with running_gateway([f"one={one.address}", f"two={other.address}"]) as gateway:
        assert wait_until(lambda: router_of(gateway), 10)
        router = router_of(gateway)
        watcher = router.parent()
        if os.geteuid() == 0:
            assert router.username() == "nobody"
        assert (gateway.folder / "router").stat().st_mode & 0o777 == 0o700
    assert wait_until(lambda: not router.is_running() and not watcher.is_running(), 10)


def test_one_model_with_aliases_needs_no_names_in_its_list(upstreams):
    (server,) = upstreams(1)
    with running_gateway([server.address], ALIASES="gpt-4o=one,default=one") as gateway:
        heard = []
        for body in ({"model": "gpt-4o"}, {}, {"model": "one"}, {"model": "other"}):
            assert post(gateway, body).status_code == 200
            heard.append(server.seen[-1]["headers"].get("x-lingbi-model"))
        assert heard == ["one", "one", None, None]
        httpx.get(gateway.url + "/v1/models/gpt-4o")
        assert server.seen[-1]["path"] == "/v1/models/gpt-4o" and server.seen[-1]["headers"]["x-lingbi-model"] == "one"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Real servers of two models, both with the demo's weights, so that answers are checked by content."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(DEMO_FOLDER, folder / "shapes-二")
    config = json.loads((folder / "shapes-二/config.json").read_text())
    del config["lingbi_demo"]  # by which it would be known under its own name
    (folder / "shapes-二/config.json").write_text(json.dumps(config))
    with running_worker(folder / "0") as first:
        keys = {"LINGBI_KEYS_FILE": str(folder / "0/keys"), "LINGBI_API_KEY_FILE": str(folder / "1/api-key")}
        keys["LINGBI_DATABASE_URL"] = f"sqlite:///{folder}/0/accounts/accounts.db"
        (folder / "1").mkdir()
        (folder / "1/api-key").write_text(first["key"])
        with running_worker(folder / "1", LINGBI_MODEL=str(folder / "shapes-二"), **keys) as second:
            yield [first | {"state_dir": folder / "0"}, second]


@pytest.fixture
def real(models):
    servers = [f"{model['model']}={model['url'].removeprefix('http://')}" for model in models]
    aliases = f"gpt-4o={models[1]['model']},default={models[0]['model']}"
    with running_gateway(servers, ALIASES=aliases) as gateway:
        gateway.client = httpx.Client(
            base_url=gateway.url, headers={"Authorization": f"Bearer {models[0]['key']}"}, timeout=60
        )
        yield gateway


def test_real_models_answer_under_their_names_and_aliases(real, models):
    names = [model["model"] for model in models]
    assert names[1] == "shapes-二"
    for asked, answering in ((names[0], names[0]), (names[1], names[1]), ("gpt-4o", names[1]), (None, names[0])):
        answer = real.client.post(CHAT, json=question(models[0], SCENES[1]) | {"model": asked})
        assert fault(SCENES[1], answer) is None and answer.json()["model"] == answering
    body = {"prompt": "The picture shows", "max_tokens": 4, "model": "gpt-4o"}
    assert real.client.post("/v1/completions", json=body).json()["model"] == names[1]
    asked = {"input": "hello", "model": "gpt-4o", "max_output_tokens": 4}
    assert real.client.post("/v1/responses", json=asked).json()["model"] == names[1]


def test_real_servers_refuse_what_names_no_model_and_is_no_json(real):
    answer = real.client.post(CHAT, content=b'{"model": ')
    assert answer.status_code == 400 and "not valid JSON" in answer.json()["error"]["message"]


def test_the_list_of_models_is_that_of_all_servers(real, models):
    names = sorted(model["model"] for model in models)
    found = real.client.get("/v1/models").json()
    assert found["object"] == "list" and [item["id"] for item in found["data"]] == names
    for item in found["data"]:
        lingbi = item["lingbi"]
        assert lingbi["state"] == "ready" and lingbi["session_length"] > 0 and lingbi["prompt"]["template_tokens"] > 0
        assert (lingbi["servers"], lingbi["ready"]) == (1, 1)
        assert real.client.get(f"/v1/models/{item['id']}").json()["id"] == item["id"]
    assert real.client.get("/v1/models/gpt-4o").json()["id"] == models[1]["model"]
    assert real.client.get("/v1/models/three").json()["error"]["code"] == "model_not_found"


def test_who_has_no_key_learns_no_names(real):
    for answer in (
        httpx.get(real.url + "/v1/models"),
        httpx.get(real.url + "/v1/models/three"),
        httpx.post(real.url + CHAT, json={"model": "three"}),
    ):
        assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer" and "shapes" not in answer.text


def test_a_key_sees_and_uses_its_own_models_alone(real, models):
    names = [model["model"] for model in models]
    made = lingbi("key", "add", "second", "--models", names[1], state_dir=models[0]["state_dir"])
    second = {"url": real.url, "key": made.stdout.strip()}
    assert wait_until(lambda: is_let_in(second), 20), made.stderr
    with http(second, timeout=60) as client:
        assert [item["id"] for item in client.get("/v1/models").json()["data"]] == names[1:]
        assert client.get(f"/v1/models/{names[1]}").json()["id"] == names[1]
        assert wait_until(lambda: client.post(CHAT, json=question(models[1], SCENES[1])).status_code == 200, 20)
        for refused in (client.get(f"/v1/models/{names[0]}"), client.post(CHAT, json=question(models[0], SCENES[1]))):
            error = refused.json()["error"]
            assert (refused.status_code, error["code"], error["param"]) == (403, "model_not_found", "model")
            assert error["message"] == f"this API key may not use the model {names[0]!r}; it may use: {names[1]}"


def test_hundreds_of_questions_to_both_models_reach_no_wrong_one(real, models):
    wrong = []

    def work(number: int) -> None:
        model = models[number % 2]
        for turn in range(12):
            scene = SCENES[(number + turn) % len(SCENES)]
            answer = real.client.post(CHAT, json=question(model, scene))
            if fault(scene, answer) or answer.json()["model"] != model["model"]:
                wrong.append(answer.text)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_smoke_test_asks_every_model_by_its_name(real, models):
    state_dir, names = models[0]["log"].parent, sorted(model["model"] for model in models)
    done = lingbi("smoke", real.url, "--json", "--api-key-file", state_dir / "api-key", state_dir=state_dir)
    report = json.loads(done.stdout.splitlines()[-1])
    failed = [check["name"] for check in report["checks"] if not check["passed"]]
    assert done.returncode == 1 and failed == ["page"], done.stderr  # this gateway has none
    asked = {name: [check["name"] for check in report["checks"] if check["model"] == name] for name in names}
    assert report["model"] == ", ".join(names)
    first, second = asked.values()
    assert {"live", "ready", "key-required", "gateway", "picture", "stream"} <= set(first)
    assert "live" not in second and {"picture", "stream", "text-completion"} <= set(second)
