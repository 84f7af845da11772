"""Which models a list of servers has, and where a request goes."""

import json

import pytest

from lingbi_gateway import routes
from lingbi_gateway.configuration import Machine, render, servers_file
from lingbi_gateway.router.decision import Model, Refused, Routed, Routes, decide, find
from lingbi_gateway.router.offer import facts
from lingbi_gateway.servers import Server, by_model, parse
from lingbi_gateway.settings import ConfigurationError, load_settings

LIST = """# a comment: server 10.0.0.9:1;
server 10.0.0.5:23333; # gpu-1 model=vl-7b
  server 10.0.0.6:23333 down; # gpu-2 drained 17 model=vl-7b
server [fd00::7]:23333 resolve weight=2; # model=书生/4khd
"""
MACHINE = Machine(None, 1024, (1, 28, 0))
TWO = Routes({"vl-7b": Model("model_a", ("10.0.0.5:23333",)), "4khd-7b": Model("model_b", ())}, {"gpt-4o": "vl-7b"})


def settings(**values):
    return load_settings({f"LINGBI_GATEWAY_{name}": value for name, value in values.items()})


def rendered(machine=MACHINE, **values) -> dict:
    return render(settings(DIR="/d", **values), machine, None)


def test_a_list_names_the_model_of_each_server():
    first, second, third = parse(LIST)
    assert first == Server("10.0.0.5:23333", (), "vl-7b") and second.is_down and not third.is_down
    assert third.directive() == "server [fd00::7]:23333 resolve weight=2; # model=书生/4khd"
    assert {model: len(group) for model, group in by_model(parse(LIST)).items()} == {"vl-7b": 2, "书生/4khd": 1}


def test_all_servers_of_a_list_name_their_model_or_none_does():
    assert by_model(parse("server a:1;\nserver b:1; # b\n")) == {}
    with pytest.raises(ConfigurationError, match="no model for b:1"):
        by_model(parse("server a:1; # model=x\nserver b:1;\n"))


def test_the_setting_names_models_too():
    given = settings(SERVERS="vl-7b=10.0.0.5:23333, 4khd-7b=gpu.lab:23333", RESOLVER="127.0.0.11:53")
    assert parse(servers_file(given, MACHINE)) == (
        Server("10.0.0.5:23333", (), "vl-7b"),
        Server("gpu.lab:23333", ("resolve",), "4khd-7b"),
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"SERVERS": "a b=10.0.0.5:1"}, "HOST:PORT"),
        ({"SERVERS": 'v"l=10.0.0.5:1'}, "is no model's name"),
        ({"SERVERS": "=10.0.0.5:1"}, "is no model's name"),
        ({"ALIASES": "gpt-4o"}, "give ALIAS=MODEL"),
        ({"ALIASES": "a=b,a=c"}, "'a' is given twice"),
        ({"SERVERS": "a=h:1,b=h:2", "ALIASES": "a=b"}, "'a' is the name of a model that is served"),
        ({"SERVERS": "a=h:1,b=h:2", "ALIASES": "x=c"}, "no server has the model 'c'; those listed are a, b"),
        ({"SERVERS": "h:1", "ALIASES": "x=y,y=z"}, "'y' is an alias itself"),
        ({"SERVERS": "a=h:1,h:2"}, "no model for h:2"),
        ({"SERVERS": "a=h:1,b=h:2", "DIR": "/" + "d" * 120}, "choose a shorter path"),
    ],
    ids=range(10),
)
def test_what_cannot_be_routed_is_refused_at_the_start(values, said):
    with pytest.raises(ConfigurationError, match=said):
        render(settings(**{"DIR": "/d"} | values), MACHINE, None)


def test_one_model_is_passed_on_as_ever():
    for one, named in (("10.0.0.5:1", "vl-7b=10.0.0.5:1"), ("10.0.0.5:1,10.0.0.6:1", "a=10.0.0.5:1,a=10.0.0.6:1")):
        plain, same = rendered(SERVERS=one, AFFINITY="off"), rendered(SERVERS=named, AFFINITY="off")
        assert plain == same and json.loads(plain[routes.FILE]) is None
        assert plain["models.conf"] == plain["routes.conf"] == plain["inner-routes.conf"] == routes.NONE
    assert rendered(SERVERS="10.0.0.5:1")["models.conf"] == routes.NONE  # nothing to choose from


def test_each_server_of_one_model_has_an_upstream_with_two_that_stand_in():
    machine = Machine(
        None, 1024, (1, 28, 0), parse("server a:1;\nserver b:1;\nserver c:1 down;\nserver d:1;\nserver e:1;\n")
    )
    found = rendered(machine, SERVERS="")
    told = json.loads(found[routes.FILE])["models"][""]
    assert told == {"pool": "", "servers": ["a:1", "b:1", "d:1", "e:1"], "drained": ["c:1"]}
    last = found["models.conf"].split("server e:1;")[1]
    assert last.split("keepalive")[0].split(";") == ["\n    server a:1 backup", "\n    server b:1 backup", "\n    "]
    assert "c:1" not in found["models.conf"]
    assert "@unrouted" in found["routes.conf"] and "alias" in found["nginx.conf"].split("location = /healthz")[1][:400]


def test_two_models_have_an_upstream_each_whose_name_stays():
    found = rendered(Machine(None, 1024, (1, 28, 0), parse(LIST)), SERVERS="")
    told = json.loads(found[routes.FILE])
    pool = routes.pool("vl-7b")
    assert told["models"]["vl-7b"] == {"pool": pool, "servers": ["10.0.0.5:23333"], "drained": ["10.0.0.6:23333"]}
    assert f"upstream {pool} {{" in found["models.conf"] and f"    {pool} {pool};" in found["models.conf"]
    assert "limit_req" in found["routes.conf"] and "limit_req" not in found["inner-routes.conf"]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"model": "vl-7b"}, Routed("model_a", "vl-7b")),
        ({"messages": [{"content": '"model": "vl-7b"'}], "model": "4khd-7b"}, Routed("model_b", "4khd-7b")),
        ({"model": "gpt-4o"}, Routed("model_a", "vl-7b")),
        ({"model": "VL-7B"}, 404),
        ({"model": "default"}, 404),
        ({"model": "x" * 10_000}, 404),
        ({"model": ""}, 400),
        ({"model": None}, 400),
        ({"model": ["vl-7b"]}, 400),
        ({}, 400),
        (["vl-7b"], Routed()),
        (None, Routed()),
    ],
    ids=range(12),
)
def test_a_request_goes_where_its_model_is(asked, found):
    decision = decide(TWO, asked)
    if isinstance(found, Routed):
        assert decision == found
        return
    assert isinstance(decision, Refused) and decision.status == found
    error = json.loads(decision.body())["error"]
    assert (
        error["param"] == "model" and "'4khd-7b', 'gpt-4o', 'vl-7b'" in error["message"] and len(error["message"]) < 250
    )


@pytest.mark.parametrize("named", [{}, {"model": None}, {"model": ""}, {"model": "default"}])
def test_a_default_answers_who_names_no_model(named):
    routes_with_default = Routes(TWO.models, {"default": "4khd-7b"})
    assert decide(routes_with_default, named) == Routed("model_b", "4khd-7b")


def test_where_the_list_names_no_models_only_aliases_are_changed():
    only_aliases = Routes({}, {"gpt-4o": "vl-7b"})
    assert decide(only_aliases, {"model": "gpt-4o"}) == Routed("", "vl-7b")
    assert decide(only_aliases, {"model": "anything"}) == decide(only_aliases, {}) == Routed()
    assert find(only_aliases, "vl-7b") == Routed()


def test_what_is_told_of_a_model_is_what_its_servers_say():
    model = Model("model_a", ("a:1", "b:1"), ("c:1",))
    ready = {"status": "ready", "model": "vl-7b", "phase": "ready", "progress": 1.0, "gpu": {"session_len": 4096}}
    other = {"status": "ready", "model": "4khd-7b", "phase": "ready"}
    found = facts("vl-7b", model, ["gpt-4o"], [other, ready])
    assert found["state"] == "ready" and found["session_length"] == 4096 and found["aliases"] == ["gpt-4o"]
    assert (found["servers"], found["ready"]) == (3, 1)
    assert facts("vl-7b", model, [], [{}, other])["state"] == "away"


def test_a_model_is_as_the_server_that_will_answer_soonest():
    """Of a model that is loaded on demand: `status` is ready as long as requests are taken, `state` tells what they meet."""
    model = Model("model_a", ("10.0.0.1:23333", "10.0.0.1:23334", "[fd00::2]:23333"), ("10.0.0.3:23333",))
    asleep = {"status": "ready", "model": "vl-7b", "phase": "asleep", "state": "asleep", "image_tokens": [1225, 1225]}
    waking = asleep | {"phase": "loading language model", "state": "waking", "progress": 0.4}
    ready, failed = asleep | {"phase": "ready", "state": "ready"}, asleep | {"status": "not ready", "state": "failed"}
    for reports, state in (
        ([asleep, waking, ready], "ready"),
        ([asleep, waking, failed], "waking"),
        ([failed, asleep], "asleep"),
    ):
        found = facts("vl-7b", model, [], reports)
        assert (found["state"], found["image_tokens"]) == (state, [1225, 1225])
    assert (found["hosts"], found["servers"], found["ready"]) == (3, 4, 1)
